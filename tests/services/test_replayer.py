"""The replayer: a file as a feed, written at the pace of its own time, until its end or a signal."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from streamlstm.adapters.files import STDIN
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import NewRecord, Record
from streamlstm.errors import LogError, SchemaError, SettingsError
from streamlstm.services import replayer
from streamlstm.services.feed_effects import Tally, delivered
from streamlstm.services.feed_source import Timed, timed
from streamlstm.services.replayer import (
    BATCH_EVENTS,
    LONGEST_BATCH_S,
    LONGEST_WAIT_S,
    MAX_READERS,
    Clock,
    Replayed,
    paced,
    replay,
)
from streamlstm.services.settings import ReplaySettings
from tests import builders

STREAM = 'key = "sensor"\ntimestamp = "time"\ntimestamp_unit = "ms"\n[features.flow]\n[features.pressure]\n'


def make_file(directory: Path, values: list[bytes]) -> Path:
    """Write events as JSON lines."""
    path = directory / "live.jsonl"
    path.write_bytes(b"".join(value + b"\n" for value in values))
    return path


def make_settings(directory: Path, **given: object) -> ReplaySettings:
    """Return settings for a log in ``directory``."""
    (directory / "stream.toml").write_text(STREAM)
    defaults = {"stream": directory / "stream.toml", "log": f"sqlite:///{directory / 'log.db'}", "speed": 0.0}
    return ReplaySettings(**(defaults | given))  # type: ignore[arg-type]


def topic_of(directory: Path, topic: str = "events") -> list[Record]:
    """Return all records of the topic."""
    log = SqliteLog(directory / "log.db")
    found = [r for p in range(log.topic(topic).partitions) for r in log.read(topic, p, 0, 1_000_000)]
    log.close()
    return found


def event_at(second: float, sensor: str = "a") -> bytes:
    """Return an event at a time since the first one."""
    return builders.make_record(sensor=sensor, time=builders.START_MS + round(second * 1000)).value


def seconds_of(records: Sequence[Record]) -> list[float]:
    """Return the times in the events, in seconds since the start of the file."""
    return [(msgspec.json.decode(record.value)["time"] - builders.START_MS) / 1000 for record in records]


class FakeTime:
    """A clock that only waiting moves, and that asks to stop when its time is over."""

    def __init__(self, stop_at_s: float = float("inf")) -> None:
        self.now_s = 1000.0
        self.waits_s: list[float] = []
        self._stop_at_s = 1000.0 + stop_at_s
        self.clock = Clock(lambda: self.now_s, self._now_ms, self._wait)

    def _now_ms(self) -> int:
        return 2 * builders.START_MS + round((self.now_s - 1000.0) * 1000)

    def _wait(self, stop: threading.Event, seconds: float) -> bool:
        self.waits_s.append(seconds)
        self.now_s = min(self.now_s + seconds, self._stop_at_s)
        if self.now_s >= self._stop_at_s:
            stop.set()
        return stop.is_set()


def feed_of(values: list[bytes]) -> Iterator[Timed]:
    """Return events as a feed to which nothing happens."""
    return timed([(values, 1.0)], builders.SCHEMA)


def batches_of(feed: Iterator[Timed], speed: float, time: FakeTime) -> list[tuple[float, int]]:
    """Return when each batch comes, in seconds since the start, and how many events it has."""
    return [(round(time.now_s - 1000.0, 6), len(batch)) for batch in paced(feed, speed, threading.Event(), time.clock)]


def test_replay_as_fast_as_possible_writes_every_event_in_order(tmp_path: Path) -> None:
    """Values are the lines of the file, keys are taken from them, and what was done is returned."""
    feed = builders.make_feed(700)
    values = [record.value for record in feed]
    done = replay(make_file(tmp_path, values), make_settings(tmp_path))
    last_ms = builders.START_MS + 699 * builders.STEP_MS
    assert done == Replayed(Tally(), events=1400, until_ms=last_ms, rounds=1.0, stopped=False)
    found = topic_of(tmp_path)
    assert [record.value for record in found] == values
    assert [record.key for record in found] == [b"a", b"b"] * 700


def test_replay_writes_bad_events_too(tmp_path: Path) -> None:
    """What to do with a bad record is the scorer's to say; its key is not known."""
    values = [event_at(0), b"{no json", b"{}", event_at(1)]
    assert replay(make_file(tmp_path, values), make_settings(tmp_path)).events == 4
    assert [(record.key, record.value) for record in topic_of(tmp_path)] == [
        (b"a", values[0]),
        (None, values[1]),
        (None, values[2]),
        (b"a", values[3]),
    ]


def test_replay_makes_the_topic_as_asked_and_keeps_keys_together(tmp_path: Path) -> None:
    """Partitions and retention are those of the settings; each key has one partition."""
    keys = [f"k{i}" for i in range(20)]
    path = make_file(tmp_path, [event_at(second, key) for second in range(3) for key in keys])
    replay(path, make_settings(tmp_path, topic="pumps", partitions=3, retention_s=3600.0))
    log = SqliteLog(tmp_path / "log.db")
    assert log.topic("pumps").partitions == 3
    assert log.topic("pumps").retention_s == 3600.0
    log.close()
    homes = {(record.key, record.partition) for record in topic_of(tmp_path, "pumps")}
    assert len(homes) == len(keys)
    assert {partition for _, partition in homes} == {0, 1, 2}


def test_replay_twice_appends(tmp_path: Path) -> None:
    """A topic that is there is continued."""
    for _ in range(2):
        replay(make_file(tmp_path, [event_at(0), event_at(1)]), make_settings(tmp_path))
    assert [record.offset for record in topic_of(tmp_path)] == [0, 1, 2, 3]


def test_replay_to_a_topic_with_other_partitions_is_refused(tmp_path: Path) -> None:
    """Keys would move between partitions."""
    replay(make_file(tmp_path, [event_at(0)]), make_settings(tmp_path))
    with pytest.raises(LogError, match="has 1 partitions, not 2"):
        replay(make_file(tmp_path, [event_at(0)]), make_settings(tmp_path, partitions=2))


def test_replay_without_its_stream_schema_names_the_file(tmp_path: Path) -> None:
    """Without the schema nobody knows where key and time sit; nothing is made."""
    settings = make_settings(tmp_path, stream=tmp_path / "gone.toml")
    with pytest.raises(SchemaError, match=r"gone\.toml: there is no such file"):
        replay(make_file(tmp_path, [event_at(0)]), settings)
    assert not (tmp_path / "log.db").exists()


@pytest.mark.parametrize(("speed", "expected_s"), [(1.0, [0.0, 10.0, 25.0]), (10.0, [0.0, 1.0, 2.5])])
def test_pace_follows_the_events_own_time(speed: float, expected_s: list[float]) -> None:
    """An event comes when its time since the first one has passed, divided by the speed."""
    values = [event_at(0), event_at(10), event_at(25)]
    assert batches_of(feed_of(values), speed, FakeTime()) == [(moment, 1) for moment in expected_s]


def test_pace_without_speed_never_waits() -> None:
    """Speed 0 writes full batches at once."""
    values = [event_at(60 * minute) for minute in range(BATCH_EVENTS + 3)]
    time = FakeTime()
    assert batches_of(feed_of(values), 0.0, time) == [(0.0, BATCH_EVENTS), (0.0, 3)]
    assert time.waits_s == []


def test_pace_of_a_fast_feed_writes_several_events_at_once() -> None:
    """Events within a quarter of a second share a transaction; none comes before its time, or much later."""
    values = [event_at(0.1 * i) for i in range(30)]
    batches = batches_of(feed_of(values), 1.0, FakeTime())
    assert len(batches) <= 30 * 0.1 / LONGEST_BATCH_S
    moments_s = [moment for moment, count in batches for _ in range(count)]
    delays_s = [moment - 0.1 * i for i, moment in enumerate(moments_s)]
    assert len(delays_s) == 30
    assert min(delays_s) >= -1e-9
    assert max(delays_s) <= LONGEST_BATCH_S


def test_pace_of_more_events_at_once_than_a_batch_keeps_batches_small() -> None:
    """A burst is several transactions, all of them on time."""
    values = [event_at(0), *[event_at(5)] * (BATCH_EVENTS + 1)]
    assert batches_of(feed_of(values), 1.0, FakeTime()) == [(0.0, 1), (5.0, BATCH_EVENTS), (5.0, 1)]


def test_pace_after_a_delay_catches_up() -> None:
    """Time lost in writing is not added to every later event."""
    time = FakeTime()
    moments = []
    for _ in paced(feed_of([event_at(second) for second in range(4)]), 1.0, threading.Event(), time.clock):
        moments.append(time.now_s - 1000.0)
        time.now_s += 1.5 if len(moments) == 1 else 0.0
    assert moments == [0.0, 1.5, 2.0, 3.0]


def test_pace_begins_with_the_first_event() -> None:
    """Time that passes before there is an event, for finding where copies start, is not caught up."""
    time = FakeTime()

    def late() -> Iterator[Timed]:
        time.now_s += 60.0
        yield from feed_of([event_at(0), event_at(10)])

    assert batches_of(late(), 1.0, time) == [(60.0, 1), (70.0, 1)]


def test_pace_bears_events_without_or_before_their_time() -> None:
    """A bad or late event comes with the one before it."""
    values = [b"{no json", event_at(0), event_at(10), event_at(3), b"{}", event_at(12)]
    assert batches_of(feed_of(values), 1.0, FakeTime()) == [(0.0, 2), (10.0, 3), (12.0, 1)]


def test_pace_of_an_event_far_off_waits_in_pieces() -> None:
    """One wrong time asks for a wait of years: no clock is asked for that at once."""
    time = FakeTime()
    assert batches_of(feed_of([event_at(0), event_at(3600 * 10)]), 1.0, time)[-1] == (36_000.0, 1)
    assert time.waits_s == [LONGEST_WAIT_S] * 10


def test_pace_stopped_while_waiting_writes_only_what_was_due() -> None:
    """A signal ends the wait; what was not due is not written."""
    values = [event_at(second) for second in range(10)]
    batches = batches_of(feed_of(values), 1.0, FakeTime(stop_at_s=3.5))
    assert batches == [(0.0, 1), (1.0, 1), (2.0, 1), (3.0, 1)]


def test_pace_of_bursts_is_silence_and_many_events(tmp_path: Path) -> None:
    """Events held back come together at the end of their interval, at any speed."""
    settings = make_settings(tmp_path, burst_every_s=10.0)
    values = [event_at(second) for second in range(25)]
    for speed in (1.0, 5.0):
        feed = delivered(feed_of(values), settings, Tally())
        assert batches_of(feed, speed, FakeTime()) == [(10 / speed, 10), (20 / speed, 10), (30 / speed, 5)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_the_replay_with_whole_events_and_reads_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """What was written is the beginning of the file without a gap; handlers are as before."""
    values = [event_at(second) for second in range(5000)]
    read: list[int] = []

    def read_events(path: Path, schema: object, **options: object) -> Iterator[list[bytes]]:
        for start in range(0, len(values), 1000):
            read.append(start)
            yield values[start : start + 1000]

    class SignallingLog(SqliteLog):
        def append(self, topic: str, records: list[NewRecord]) -> None:  # type: ignore[override]
            super().append(topic, records)
            if self.topic(topic).end_offsets == (BATCH_EVENTS,):
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    monkeypatch.setattr(replayer, "read_events", read_events)
    monkeypatch.setattr(replayer, "open_log", lambda url, must_exist: SignallingLog(tmp_path / "log.db"))
    done = replay(Path("live.jsonl"), make_settings(tmp_path))
    found = topic_of(tmp_path)
    assert BATCH_EVENTS <= done.events == len(found) < 1000
    assert done.stopped
    assert done.until_ms == builders.START_MS + 1000 * (done.events - 1)
    assert [record.value for record in found] == values[: done.events]
    assert read == [0], "the rest of the file was read for nothing"
    assert signal.getsignal(number) is before


def test_replay_leaves_no_thread_behind(tmp_path: Path) -> None:
    """The progress bar's thread ends with the replay."""
    before = threading.active_count()
    replay(make_file(tmp_path, [event_at(0)]), make_settings(tmp_path))
    assert threading.active_count() == before


def test_signal_while_reading_is_not_the_end_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is left in the middle is not taken for a short one, to be played again."""
    started: list[bool] = []

    def read_events(path: Path, schema: object, **options: object) -> Iterator[list[bytes]]:
        started.append(True)
        yield [event_at(second) for second in range(10)]
        os.kill(os.getpid(), signal.SIGTERM)
        yield [event_at(second) for second in range(10, 20)]

    monkeypatch.setattr(replayer, "read_events", read_events)
    done = replay(Path("live.jsonl"), make_settings(tmp_path, loop=0))
    assert (done.stopped, done.events, started) == (True, 0, [True])


def test_replay_in_rounds_writes_the_file_again_at_later_times(tmp_path: Path) -> None:
    """Each round goes on where the last one ended; only times are new."""
    path = make_file(tmp_path, [event_at(0), event_at(10), b"{no json", event_at(20)])
    done = replay(path, make_settings(tmp_path, loop=3))
    found = topic_of(tmp_path)
    assert [record.value for record in found].count(b"{no json") == 3
    assert seconds_of([record for record in found if record.key]) == list(range(0, 90, 10))
    assert (done.events, done.rounds) == (12, 3.0)


def test_replay_without_end_plays_until_stopped_and_says_where(tmp_path: Path) -> None:
    """The clock stops it in the third round: what was due by then is in the topic, and the summary says so."""
    path = make_file(tmp_path, [event_at(second) for second in range(0, 40, 10)])
    with capture_logs() as logs:
        done = replay(path, make_settings(tmp_path, loop=0, speed=1.0), FakeTime(stop_at_s=95.0).clock)
    assert seconds_of(topic_of(tmp_path)) == list(range(0, 100, 10))
    assert done == Replayed(Tally(), 10, builders.START_MS + 90_000, rounds=2.5, stopped=True)
    (line,) = logs
    assert (line["event"], line["events"], line["rounds"]) == ("stopped", 10, 2.5)
    assert line["until"] == "2020-09-13T12:28:10.000+00:00"


def test_replay_of_copies_writes_each_key_several_times(tmp_path: Path) -> None:
    """A copy has its own keys, in the record and in the event, which a scorer reads alike."""
    path = make_file(tmp_path, [event_at(second, sensor) for second in range(3) for sensor in "ab"])
    replay(path, make_settings(tmp_path, copies=3))
    found = topic_of(tmp_path)
    in_event = [msgspec.json.decode(record.value)["sensor"].encode() for record in found]
    assert in_event == [record.key for record in found]
    assert Counter(in_event) == dict.fromkeys([b"a", b"a#2", b"a#3", b"b", b"b#2", b"b#3"], 3)


@pytest.mark.parametrize("name", ["live.jsonl", "live.csv"])
def test_replay_of_copies_with_phase_reads_a_long_file_in_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Many small chunks make no difference: every copy sends every event once, each at another moment."""
    monkeypatch.setattr(replayer, "MIN_CHUNK_ROWS", 7)
    monkeypatch.setattr(replayer, "CHUNK_ROWS", 7)
    flows = [float(second) for second in range(100)]
    if name.endswith("csv"):
        (tmp_path / name).write_text(
            "sensor,time,flow,pressure\n"
            + "".join(f"a,{builders.START_MS + 1000 * second},{flow},2\n" for second, flow in enumerate(flows))
        )
    else:
        make_file(
            tmp_path,
            [
                builders.make_record(time=builders.START_MS + 1000 * second, flow=flow).value
                for second, flow in enumerate(flows)
            ],
        )
    replay(tmp_path / name, make_settings(tmp_path, copies=4, phase_s=30.0))
    found = topic_of(tmp_path)
    for copy, key in enumerate((b"a", b"a#2", b"a#3", b"a#4")):
        mine = [record for record in found if record.key == key]
        assert seconds_of(mine) == list(range(100))
        expected = [(second + 30 * copy) % 100 for second in range(100)]
        assert [msgspec.json.decode(record.value)["flow"] for record in mine] == expected
    assert seconds_of(found) == sorted(seconds_of(found)), "the copies are one feed in time"


def test_replay_restamped_starts_now(tmp_path: Path) -> None:
    """The feed's first event has the time of the clock, and at speed 1 no event is ahead of it."""
    path = make_file(tmp_path, [event_at(0), event_at(10), event_at(15)])
    time = FakeTime()
    with capture_logs() as logs:
        done = replay(path, make_settings(tmp_path, restamp=True, speed=1.0), time.clock)
    start_s = builders.START_MS / 1000
    assert seconds_of(topic_of(tmp_path)) == [start_s, start_s + 10, start_s + 15]
    assert done.until_ms == time.clock.now_ms()
    assert [line["event"] for line in logs] == ["replayed"]


def test_replay_restamped_faster_than_real_time_warns_once(tmp_path: Path) -> None:
    """A scorer refuses events from the future; the one who makes them is told."""
    path = make_file(tmp_path, [event_at(5 * second) for second in range(3 * BATCH_EVENTS)])
    with capture_logs() as logs:
        replay(path, make_settings(tmp_path, restamp=True), FakeTime().clock)
    warnings = [line for line in logs if line["log_level"] == "warning"]
    assert [line["max_ahead_s"] for line in warnings] == [3600.0]
    assert warnings[0]["ahead_s"] == 5 * (2 * BATCH_EVENTS - 1), "with the first batch that is too far ahead"


def test_replay_with_effects_accounts_for_every_event(tmp_path: Path) -> None:
    """The summary's counts and the topic agree with the file, whose bytes are as they were."""
    values = [record.value for record in builders.make_feed(500)]
    effects = {"loss": 0.1, "duplicates": 0.1, "reorder": 0.1, "jitter_s": 2.0, "burst_every_s": 5.0, "seed": 3}
    with capture_logs() as logs:
        done = replay(make_file(tmp_path, values), make_settings(tmp_path, **effects))
    counts = Counter(record.value for record in topic_of(tmp_path))
    assert counts.keys() <= set(values)
    assert done.tally.lost == 1000 - len(counts) > 0
    assert done.tally.duplicated == sum(counts.values()) - len(counts) > 0
    assert done.events == sum(counts.values())
    (line,) = logs
    assert line["event"] == "replayed"
    tally = Tally(line["lost"], line["duplicated"], line["reordered"])
    assert tally == done.tally
    assert tally.reordered > 0


def test_replay_that_lost_its_last_events_has_played_the_file_all_the_same(tmp_path: Path) -> None:
    """Rounds count what was played, not what arrived."""
    path = make_file(tmp_path, [event_at(second) for second in range(100)])
    done = replay(path, make_settings(tmp_path, loss=0.9, loop=2))
    assert 0 < done.events < 100
    assert done.until_ms is not None
    assert done.until_ms < builders.START_MS + 199_000, "the seed loses the last event"
    assert done.rounds == 2.0


def test_replay_with_effects_is_the_same_at_every_speed(tmp_path: Path) -> None:
    """A fault found in real time can be looked for at full speed: the order of delivery does not depend on it."""
    path = make_file(tmp_path, [record.value for record in builders.make_feed(100)])
    effects = {"loss": 0.1, "duplicates": 0.1, "reorder": 0.1, "jitter_s": 5.0}
    orders = []
    for speed in (0.0, 1.0, 60.0):
        replay(path, make_settings(tmp_path, topic=f"speed-{speed:g}", speed=speed, **effects), FakeTime().clock)
        orders.append([record.value for record in topic_of(tmp_path, f"speed-{speed:g}")])
    assert orders[0] == orders[1] == orders[2]
    assert any(before > after for before, after in itertools.pairwise(orders[0]))


@pytest.mark.parametrize("again", [{"loop": 2}, {"loop": 0}, {"copies": 2, "phase_s": 1.0}])
def test_replay_of_standard_input_more_than_once_is_refused(tmp_path: Path, again: dict[str, object]) -> None:
    """What has been read from a pipe is gone; nothing is made."""
    with pytest.raises(SettingsError, match="standard input can be read once only"):
        replay(STDIN, make_settings(tmp_path, **again))
    assert not (tmp_path / "log.db").exists()


def test_replay_of_more_copies_than_files_can_be_open_is_refused(tmp_path: Path) -> None:
    """The message says which option, and how many are possible."""
    settings = make_settings(tmp_path, copies=MAX_READERS + 1, phase_s=1.0)
    with pytest.raises(SettingsError, match=rf"--copies {MAX_READERS + 1}: .*; {MAX_READERS} at most"):
        replay(make_file(tmp_path, [event_at(0)]), settings)
