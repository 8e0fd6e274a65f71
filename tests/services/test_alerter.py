"""The alerter on a real SQLite log, with a simulated receiver in simulated time."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from streamlstm.adapters.sqlite_log import SqliteLog, SqliteSession
from streamlstm.core.delivery import Delivery, Outcome
from streamlstm.core.log import Record
from streamlstm.core.record import AlertRecord, encode
from streamlstm.errors import LogUnavailable, TopicMissing
from streamlstm.services import alerter
from streamlstm.services.alerter import Totals, run
from streamlstm.services.settings import AlertSettings
from tests.alerts import START_MS, append_alerts, committed, dead_letters, make_alert, make_alerts, offset_in

DELIVERED, FAILED, REFUSED = Outcome("delivered", "200"), Outcome("failed", "503"), Outcome("refused", "400 bad")
LETTERS = "events.alerts.dead-letters"


NewLog = Callable[..., SqliteLog]


@pytest.fixture
def new_log(tmp_path: Path) -> Iterator[NewLog]:
    """Open the test's log, which is closed after it; with alerts, its topic ``events.alerts`` gets them."""
    with ExitStack() as opened:

        def new_log(alerts: Sequence[AlertRecord | bytes] | None, partitions: int = 1, **options: Any) -> SqliteLog:
            log = SqliteLog(tmp_path / "log.db", **options)
            opened.callback(log.close)
            if alerts is not None:
                append_alerts(log, alerts, partitions)
            return log

        yield new_log


def always(record: Record, now_s: float) -> Outcome:
    """Take everything."""
    return DELIVERED


class SimulatedReceiver:
    """A sender whose receiver answers ``answer(record, now_s)`` after ``latency_s``; only waiting takes time."""

    def __init__(self, answer: Callable[[Record, float], Outcome] = always, latency_s: float = 0.02) -> None:
        self.answer = answer
        self.latency_s = latency_s
        self.now_s = 1000.0
        self.tries: list[tuple[float, Record]] = []
        self.delivered: list[Record] = []
        self.under_way: list[tuple[float, Delivery]] = []
        self.most_under_way = 0
        self.at: dict[float, Callable[[], object]] = {}

    def clock(self) -> float:
        """Return the simulated time (s)."""
        return self.now_s

    def start(self, delivery: Delivery) -> None:
        """Take a request; the answer comes later."""
        self.tries.append((self.now_s, delivery.record))
        self.under_way.append((self.now_s + self.latency_s, delivery))
        self.most_under_way = max(self.most_under_way, len(self.under_way))

    def outcomes(self, timeout_s: float) -> list[tuple[Delivery, Outcome]]:
        """Let time pass up to the next answer, and return what was answered by then."""
        self.now_s = min([self.now_s + timeout_s, *(at_s for at_s, _ in self.under_way)])
        for at_s in [at_s for at_s in self.at if at_s <= self.now_s]:
            self.at.pop(at_s)()
        answered = [delivery for at_s, delivery in self.under_way if at_s <= self.now_s]
        self.under_way = [(at_s, delivery) for at_s, delivery in self.under_way if at_s > self.now_s]
        found = [(delivery, self.answer(delivery.record, self.now_s)) for delivery in answered]
        self.delivered += [delivery.record for delivery, outcome in found if outcome == DELIVERED]
        return found


def make_settings(**options: Any) -> AlertSettings:
    """Return settings that end with the topic, unless ``options`` say otherwise."""
    return AlertSettings(log="", webhook="", **{"until_end": True, **options})


def deliver(log: SqliteLog, receiver: SimulatedReceiver, stop: threading.Event | None = None, **options: Any) -> Totals:
    """Run the alerter in the receiver's time."""
    return run(
        log,
        receiver,
        make_settings(**options),
        stop or threading.Event(),
        clock=receiver.clock,
        wall_clock=lambda: START_MS / 1000,
        rng=lambda: 0.5,
    )


def offsets_by_key(records: Sequence[Record]) -> dict[str, list[int]]:
    """Return the offsets of the alerts' events, per key, in the order of the records."""
    found: dict[str, list[int]] = {}
    for record in records:
        found.setdefault((record.key or b"").decode(), []).append(offset_in(record))
    return found


def expected(alerts: Sequence[AlertRecord]) -> dict[str, list[int]]:
    """Return what :func:`offsets_by_key` must be if all arrive in order."""
    found: dict[str, list[int]] = {}
    for alert in alerts:
        found.setdefault(alert.key, []).append(alert.offset)
    return found


def test_run_all_taken_delivers_in_order_and_commits_the_end(new_log: NewLog) -> None:
    """The plain case: every alert once, per key in order, and nothing left to do."""
    alerts = make_alerts(100, ("a", "b", "c", "d"), partitions=2)
    log, receiver = new_log(alerts, partitions=2), SimulatedReceiver()

    totals = deliver(log, receiver, window=16)

    assert totals == Totals(delivered=100)
    assert offsets_by_key(receiver.delivered) == expected(alerts)
    assert committed(log) == {0: 50, 1: 50}
    assert receiver.most_under_way == 4


def test_run_again_after_the_end_sends_nothing(new_log: NewLog) -> None:
    """What is committed is not sent again."""
    log = new_log(make_alerts(10))
    deliver(log, SimulatedReceiver())
    append_alerts(log, [make_alert("a", offset=10)])

    receiver = SimulatedReceiver()
    assert deliver(log, receiver) == Totals(delivered=1)
    assert [offset_in(record) for record in receiver.delivered] == [10]


def test_run_receiver_dead_for_an_hour_delivers_all_afterwards_without_a_stampede(new_log: NewLog) -> None:
    """Hundreds of alerts wait, more come meanwhile, one request at a time is tried, and all arrive in order."""
    keys = [f"key-{i}" for i in range(40)]
    alerts = make_alerts(600, keys)
    log = new_log(alerts[:400])
    back_s = 1000.0 + 3600.0
    receiver = SimulatedReceiver(lambda record, now_s: DELIVERED if now_s >= back_s else FAILED)
    receiver.at = {1000.0 + 1800.0: lambda: append_alerts(log, alerts[400:])}

    totals = deliver(log, receiver)

    assert totals.delivered == 600
    assert totals.dead_letters == 0
    assert offsets_by_key(receiver.delivered) == expected(alerts)
    during = [at_s for at_s, _ in receiver.tries if at_s < back_s]
    assert len(during) < 140
    first_minutes = [at_s for at_s in during if at_s > 1000.0 + 300.0]
    assert min(b - a for a, b in pairwise(first_minutes)) > 29.0
    after = [at_s for at_s, _ in receiver.tries if at_s >= back_s]
    assert after[0] - back_s <= 60.2
    assert len(after) == 600
    assert [sum(at_s == moment for at_s in after) for moment in sorted(set(after))[:4]] == [1, 2, 4, 8]
    assert receiver.most_under_way == 8


def test_run_poison_key_ends_in_dead_letters_and_holds_up_nobody(new_log: NewLog) -> None:
    """The other keys are delivered at once, the poison one's alerts become dead letters, and the offset moves on."""
    alerts = make_alerts(160, ("poison", "b", "c", "d"))
    later = [make_alert("e", offset=160 + minute) for minute in range(40)]
    log = new_log(alerts)
    receiver = SimulatedReceiver(lambda record, now_s: FAILED if record.key == b"poison" else DELIVERED)
    receiver.at = {1000.0 + 60.0 * i: functools.partial(append_alerts, log, [later[i]]) for i in range(40)}
    stop = threading.Event()
    receiver.at[3600.0] = stop.set

    totals = deliver(log, receiver, stop, until_end=False)

    assert totals.delivered == 120 + 40
    assert offsets_by_key(dead_letters(log)) == {"poison": expected(alerts)["poison"]}
    assert committed(log) == {0: 200}
    first_tries = {record.offset: at_s for at_s, record in reversed(receiver.tries)}
    assert all(first_tries[i] < 1010.0 for i in range(160) if i % 4 != 0)
    assert all(first_tries[160 + i] < 1000.0 + 60.0 * i + 62.0 for i in range(40)), "one pause at most"


def test_run_slow_key_does_not_hold_up_the_others(new_log: NewLog) -> None:
    """A receiver that is slow for one key takes one connection of many."""
    alerts = make_alerts(120, ("slow", "b", "c", "d"))
    log = new_log(alerts)
    receiver = SimulatedReceiver()
    quick = receiver.start

    def start(delivery: Delivery) -> None:
        receiver.latency_s = 9.0 if delivery.record.key == b"slow" else 0.02
        quick(delivery)

    receiver.start = start  # type: ignore[method-assign]
    assert deliver(log, receiver).delivered == 120
    others_done_s = max(at_s for at_s, record in receiver.tries if record.key != b"slow")
    assert others_done_s < 1000.0 + 20.0
    assert offsets_by_key(receiver.delivered) == expected(alerts)


def test_run_refused_alert_is_a_dead_letter_with_reason_and_origin(new_log: NewLog) -> None:
    """The letter is the record as it was; headers say why, for which group, and where it stood."""
    log = new_log([make_alert("a", offset=3), make_alert("b", offset=4)])
    receiver = SimulatedReceiver(lambda record, now_s: REFUSED if record.key == b"b" else DELIVERED)

    assert deliver(log, receiver) == Totals(delivered=1, dead_letters=1)
    (letter,) = dead_letters(log)
    assert (letter.key, letter.value) == (b"b", encode(make_alert("b", offset=4)))
    headers = {name: value.decode() for name, value in letter.headers}
    timestamp_ms = log.read("events.alerts", 0, 1, 1)[0].timestamp_ms
    assert headers == {
        "reason": "refused",
        "detail": "400 bad",
        "group": "streamlstm",
        "topic": "events.alerts",
        "partition": "0",
        "offset": "1",
        "timestamp_ms": str(timestamp_ms),
    }


def test_run_resend_dead_letters_sends_them_and_only_once(new_log: NewLog) -> None:
    """After the receiver was mended, the letters go out in order, and a second run finds none."""
    alerts = make_alerts(30)
    log = new_log(alerts)
    deliver(log, SimulatedReceiver(lambda record, now_s: REFUSED))

    receiver = SimulatedReceiver()
    assert deliver(log, receiver, resend_dead_letters=True, until_end=False) == Totals(delivered=30)
    assert offsets_by_key(receiver.delivered) == expected(alerts)
    assert deliver(log, SimulatedReceiver(), resend_dead_letters=True) == Totals()


def test_run_resend_dead_letters_refused_again_go_back_and_keep_their_origin(new_log: NewLog) -> None:
    """Each is tried once per run: the run ends, nothing is lost, and the next run has them again."""
    log = new_log(make_alerts(30))
    refuse = SimulatedReceiver(lambda record, now_s: REFUSED)
    deliver(log, refuse)

    totals = deliver(log, refuse, resend_dead_letters=True, window=4)

    assert totals == Totals(dead_letters=30)
    assert committed(log, LETTERS) == {0: 30}
    again = log.read(LETTERS, 0, 30, 100)
    assert sorted(int(dict(letter.headers)["offset"]) for letter in again) == list(range(30))
    assert {dict(letter.headers)["topic"] for letter in again} == {b"events.alerts"}
    assert deliver(log, SimulatedReceiver(), resend_dead_letters=True) == Totals(delivered=30)


def test_run_resend_dead_letters_leaves_those_of_another_group(new_log: NewLog) -> None:
    """Each receiver has its group; its letters are not sent to another one."""
    log = new_log(make_alerts(6))
    deliver(log, SimulatedReceiver(lambda record, now_s: REFUSED), group="pager")
    deliver(log, SimulatedReceiver(lambda record, now_s: REFUSED), group="chat")

    receiver = SimulatedReceiver()
    assert deliver(log, receiver, resend_dead_letters=True, group="chat") == Totals(delivered=6, skipped=6)
    assert {record.offset for record in receiver.delivered} == set(range(6, 12))


def test_run_skip_older_than_leaves_old_alerts_unsent(new_log: NewLog) -> None:
    """A receiver new to a topic with a past need not hear of it."""
    now_ms = iter([START_MS - 7_200_000, START_MS - 60_000])
    log = new_log([], clock=lambda: next(now_ms))
    append_alerts(log, [make_alert("old", offset=0)])
    append_alerts(log, [make_alert("new", offset=1)])

    receiver = SimulatedReceiver()
    assert deliver(log, receiver, skip_older_than_s=3600.0) == Totals(delivered=1, skipped=1)
    assert offsets_by_key(receiver.delivered) == {"new": [1]}
    assert committed(log) == {0: 2}


class Crash(BaseException):
    """Stands for kill -9: nothing after it is run but what an operating system does."""


@pytest.mark.parametrize("step", ["begin", "offsets", "scores", "alerts", "dead_letters", "states", "end"])
@pytest.mark.parametrize("count", [1, 3])
def test_run_crash_at_any_step_of_a_commit_loses_nothing(new_log: NewLog, step: str, count: int) -> None:
    """Started again, every alert arrives or is a dead letter, in order per key; a letter is written once."""
    alerts = make_alerts(60)
    seen = [0]

    def on_step(name: str) -> None:
        seen[0] += name == step
        if name == step and seen[0] == count:
            raise Crash

    def answer(record: Record, now_s: float) -> Outcome:
        return REFUSED if offset_in(record) % 7 == 0 else DELIVERED

    receiver = SimulatedReceiver(answer)
    log = new_log(alerts, on_step=on_step)
    with pytest.raises(Crash):
        deliver(log, receiver)

    log = new_log(None)
    deliver(log, receiver)
    first_time = {name: list(dict.fromkeys(found)) for name, found in offsets_by_key(receiver.delivered).items()}
    letters = [offset_in(record) for record in dead_letters(log)]
    assert sorted(letters) == [alert.offset for alert in alerts if alert.offset % 7 == 0]
    assert first_time == {
        name: [offset for offset in found if offset % 7 != 0] for name, found in expected(alerts).items()
    }


def test_run_stopped_finishes_what_is_under_way_and_commits(new_log: NewLog) -> None:
    """Asked to stop, it takes nothing more, waits for the answers, and commits."""
    log, stop = new_log(make_alerts(10, ("a", "b"))), threading.Event()
    receiver = SimulatedReceiver(latency_s=2.0)
    receiver.at = {1002.5: stop.set}

    totals = deliver(log, receiver, stop, until_end=False)

    assert totals.delivered == len(receiver.tries) == 3
    assert committed(log) == {0: 3}


def test_run_stopped_with_a_hanging_receiver_abandons_it(new_log: NewLog) -> None:
    """It does not wait for ever; what was under way is sent again after the next start."""
    log, stop = new_log(make_alerts(3)), threading.Event()
    receiver = SimulatedReceiver(latency_s=1e9)
    receiver.at = {1001.0: stop.set}

    assert deliver(log, receiver, stop).delivered == 0
    assert receiver.now_s < 1001.0 + alerter.GRACE_S + 1.0
    assert committed(log) == {0: 0}
    assert deliver(log, SimulatedReceiver()).delivered == 3


class Unreachable:
    """Makes a method of a session fail now and then, as a locked or full disk does."""

    def __init__(self, real: Callable[..., Any], failing: set[int]) -> None:
        self.real, self.failing, self.calls = real, failing, 0

    def __call__(self, *arguments: Any) -> Any:
        """Call the real method, or fail."""
        self.calls += 1
        if self.calls in self.failing:
            raise LogUnavailable("database is locked")
        return self.real(*arguments)


@pytest.mark.parametrize("method", ["poll", "commit", "rewind"])
def test_run_log_out_of_reach_waits_and_goes_on(new_log: NewLog, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Nothing is lost, and nothing is sent twice, since the process remembers what it delivered."""
    alerts = make_alerts(60)
    log, receiver = new_log(alerts), SimulatedReceiver()
    fault = Unreachable(getattr(SqliteSession, method), {2, 3})
    other = Unreachable(SqliteSession.poll, {4})  # after which the session is rewound
    monkeypatch.setattr(SqliteSession, "poll", lambda *arguments: other(*arguments))
    monkeypatch.setattr(SqliteSession, method, lambda *arguments: fault(*arguments))
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", lambda timeout_s: False)

    with capture_logs() as lines:
        totals = deliver(log, receiver, stop, window=8)

    assert totals == Totals(delivered=60)
    assert offsets_by_key(receiver.delivered) == expected(alerts)
    assert committed(log) == {0: 60}
    assert fault.calls > 3
    assert [line["event"] for line in lines if line["event"].startswith("log ")][-1] == "log in reach again"


def test_run_window_full_for_long_keeps_polling_and_skips_nothing(
    new_log: NewLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer group drops a member that does not poll, and moves no partition until all have polled."""
    alerts = make_alerts(40)
    log = new_log(alerts)
    receiver = SimulatedReceiver(lambda record, now_s: DELIVERED if now_s >= 1600.0 else FAILED)
    polls: list[float] = []
    poll = SqliteSession.poll

    def counted(*arguments: Any) -> Any:
        polls.append(receiver.now_s)
        return poll(*arguments)

    monkeypatch.setattr(SqliteSession, "poll", counted)
    assert deliver(log, receiver, window=4).delivered == 40
    during = [at_s for at_s in polls if 1001.0 < at_s < 1600.0]
    assert max(late - early for early, late in pairwise(during)) < 3.0
    assert offsets_by_key(receiver.delivered) == expected(alerts)


def test_run_topic_not_there_yet_is_awaited(new_log: NewLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scorer makes the topic; the alerter may be started first, and says what it waits for."""
    log, stop = new_log(None), threading.Event()
    waits: list[float] = []

    def wait(timeout_s: float) -> bool:
        waits.append(timeout_s)
        if len(waits) == 3:
            append_alerts(log, make_alerts(1))
        return False

    monkeypatch.setattr(stop, "wait", wait)
    receiver = SimulatedReceiver()
    receiver.at = {1005.0: stop.set}
    with capture_logs() as lines:
        totals = deliver(log, receiver, stop, until_end=False)

    assert totals.delivered == 1
    assert len(waits) == 3
    assert [line["topic"] for line in lines if line["event"].startswith("waiting for the topic")] == ["events.alerts"]


def test_run_topic_missing_with_an_end_in_sight_is_an_error(new_log: NewLog) -> None:
    """A run that is to end does not wait for something that may never come."""
    with pytest.raises(TopicMissing):
        deliver(new_log(None), SimulatedReceiver())


def test_run_stopped_before_the_topic_is_there_ends(new_log: NewLog) -> None:
    """Waiting for the topic can be interrupted."""
    stop = threading.Event()
    stop.set()

    assert deliver(new_log(None), SimulatedReceiver(), stop, until_end=False) == Totals()


def test_run_outcomes_have_one_log_line_each_and_the_receiver_one_per_change(new_log: NewLog) -> None:
    """The one on call sees each try, and the beginning and the end of an outage."""
    log = new_log([make_alert("a", offset=1), b"no alert", make_alert("c", offset=2)])

    def answer(record: Record, now_s: float) -> Outcome:
        return REFUSED if record.key == b"?" else DELIVERED if now_s > 1030.0 else FAILED

    with capture_logs() as lines:
        totals = deliver(log, SimulatedReceiver(answer))

    events = [line["event"] for line in lines]
    assert events.count("alert delivered") == totals.delivered == 2
    assert events.count("alert not delivered, will be sent again") == totals.failed_tries
    assert events.count("alert given up, now a dead letter") == totals.dead_letters == 1
    assert events.count("receiver is down: alerts wait, one at a time is tried") == 1
    assert events.count("receiver is up again") == 1
    (delivered, _) = [line for line in lines if line["event"] == "alert delivered"]
    assert {name: delivered[name] for name in ("id", "action", "key", "answer", "log_level")} == {
        "id": "events:0:1",
        "action": "opened",
        "key": "a",
        "answer": "200",
        "log_level": "info",
    }
