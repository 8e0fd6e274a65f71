"""A muted key's alerts stay in the topic and are not posted; when the mute ends, the next one is."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core import feedback
from streamlstm.core.log import NewRecord
from tests.alerts import START_MS, append_alerts, committed, make_alert
from tests.core.test_feedback import make_feedback
from tests.services.test_alerter import SimulatedReceiver, deliver


def say(log: SqliteLog, *records: feedback.FeedbackRecord | bytes) -> None:
    """Append feedback, or bytes that are none."""
    log.create_topic("events.feedback", 1)
    values = [record if isinstance(record, bytes) else feedback.encode(record) for record in records]
    log.append("events.feedback", [NewRecord(b"k", value) for value in values])


def test_muted_key_is_not_posted_and_others_are(tmp_path: Path) -> None:
    """Its records count as done, are told as muted, and stay where they were; bytes that are no feedback do nothing."""
    with closing(SqliteLog(tmp_path / "log.db", clock=lambda: START_MS)) as log:
        append_alerts(log, [make_alert("pump-7", offset=1), make_alert("pump-8", offset=2)])
        say(log, b"\xff no feedback", make_feedback(at_ms=START_MS - 1, until_ms=START_MS + 1))
        receiver = SimulatedReceiver()
        totals = deliver(log, receiver)
        assert [record.key for record in receiver.delivered] == [b"pump-8"]
        assert (totals.delivered, totals.muted, totals.skipped) == (1, 1, 0)
        assert committed(log) == {0: 2}
        assert len(log.read("events.alerts", 0, 0, 10)) == 2


def test_next_record_of_an_open_episode_is_posted_after_the_mute(tmp_path: Path) -> None:
    """Unmuted while the episode is open: what comes next of it is sent, what was muted is not sent later."""
    with closing(SqliteLog(tmp_path / "log.db", clock=lambda: START_MS)) as log:
        append_alerts(log, [make_alert("pump-7", "opened", 1)])
        say(log, make_feedback(at_ms=START_MS - 1, until_ms=START_MS + 1))
        receiver = SimulatedReceiver()
        assert deliver(log, receiver).muted == 1
        say(log, make_feedback("unmute", at_ms=START_MS))
        append_alerts(log, [make_alert("pump-7", "updated", 2, id="events:0:1")])
        assert deliver(log, receiver).delivered == 1
        assert [record.offset for record in receiver.delivered] == [1]


def test_end_of_an_episode_is_posted_though_the_key_is_muted(tmp_path: Path) -> None:
    """The receiver had its beginning: what it shows must not stay open for ever."""
    with closing(SqliteLog(tmp_path / "log.db", clock=lambda: START_MS)) as log:
        append_alerts(log, [make_alert("pump-7", "opened", 1)])
        receiver = SimulatedReceiver()
        assert deliver(log, receiver).delivered == 1
        say(log, make_feedback(at_ms=START_MS - 1, until_ms=START_MS + 60_000))
        append_alerts(
            log,
            [make_alert("pump-7", "updated", 2, id="events:0:1"), make_alert("pump-7", "resolved", 3, id="events:0:1")],
        )
        totals = deliver(log, receiver)
        assert (totals.delivered, totals.muted) == (1, 1)
        assert [record.offset for record in receiver.delivered] == [0, 2]


def test_mute_said_while_the_alerter_runs_holds_within_seconds(tmp_path: Path) -> None:
    """The feedback topic is made, and read, after the alerter has started."""
    with closing(SqliteLog(tmp_path / "log.db", clock=lambda: START_MS)) as log:
        append_alerts(log, [make_alert("pump-7", offset=i) for i in range(3)])
        receiver = SimulatedReceiver(latency_s=1.5)
        at_s = receiver.now_s + 1.0
        receiver.at[at_s] = lambda: say(log, make_feedback(at_ms=START_MS - 1, until_ms=START_MS + 1))
        totals = deliver(log, receiver, window=1)
        assert (totals.delivered, totals.muted) == (1, 2)
