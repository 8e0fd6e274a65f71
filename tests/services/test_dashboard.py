"""The dashboard's reader, desk and past: bounded, committed records only, and an outage is said and outlived."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.adapters.web.app import Said
from streamlstm.adapters.web.hub import Frame
from streamlstm.core import feedback, pack
from streamlstm.core.log import Headers, NewRecord, Record
from streamlstm.dashboard.board import Board
from streamlstm.errors import LogError, LogUnavailable, SettingsError
from streamlstm.services import dashboard, history
from streamlstm.services.dashboard_desk import Desk
from streamlstm.services.dashboard_reader import Lag, Reader, Standstill
from streamlstm.services.dashboard_source import BoardSource
from streamlstm.services.history import first_offset, history_of
from streamlstm.services.scorer import run
from streamlstm.services.settings import DashboardSettings, ScoreSettings
from tests.builders import START_MS, STEP_MS, bundle, changed, make_feed

PATIENCE_S = 30.0


def make_scored(path: Path, steps: int = 150, keys: Sequence[str] = ("a", "b"), **settings: Any) -> Path:
    """Make a log with a scored feed; more can be added by calling it again."""
    with closing(SqliteLog(path)) as log:
        log.create_topic("events", 1)
        start = log.topic("events").end_offsets[0] // len(keys)
        feed = make_feed(steps, keys, start=start)
        log.append("events", [NewRecord(record.key, record.value) for record in feed])
        run(log, bundle(), ScoreSettings(**{"until_end": True, "explain": "all", **settings}), threading.Event())
    return path


class Shown:
    """What a reader published, and whether it ended."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.ended = threading.Event()
        self._came = threading.Condition()

    def take(self, frame: Frame) -> None:
        """Take a frame."""
        with self._came:
            self.frames.append(frame)
            self._came.notify_all()

    def head(self, **wanted: object) -> dict[str, Any]:
        """Wait for a state whose head holds this, and return the head."""

        def there() -> dict[str, Any] | None:
            for frame in self.frames[-1:]:
                head: dict[str, Any] = msgspec.json.decode(frame.whole())["head"]
                if all(head[name] == value for name, value in wanted.items()):
                    return head
            return None

        with self._came:
            assert self._came.wait_for(there, PATIENCE_S), self.frames[-1].whole()[:400]
            found = there()
        assert found is not None
        return found


@contextmanager
def reading(open_log: Any, board: Board, **options: Any) -> Iterator[tuple[Reader, Shown]]:
    """Run a reader."""
    shown = Shown()
    chosen = {"give_up_after_s": 60.0, "may_write": True, **options}
    reader = Reader(open_log, board, threading.Lock(), publish=shown.take, on_end=shown.ended.set, **chosen)
    reader.start()
    try:
        yield reader, shown
    finally:
        reader.close()


def test_reader_shows_what_is_committed_and_what_comes(tmp_path: Path) -> None:
    """Scores, lag and keys; an event without a score waits; the feedback topic is made."""
    path = make_scored(tmp_path / "log.db")
    with reading(partial(SqliteLog, path), Board("events", bundle())) as (_, shown):
        head = shown.head(keys=2, lag=0, behind=0)
        assert head["model"] == bundle().name
        with closing(SqliteLog(path)) as log:
            log.append("events", [NewRecord(None, make_feed(151, ("a",))[-1].value)])
        shown.head(lag=1)
        make_scored(path, 0)
        shown.head(lag=0)
    with closing(SqliteLog(path)) as log:
        assert log.topic("events.feedback").partitions == 1


def test_read_only_reader_makes_no_topic(tmp_path: Path) -> None:
    """It needs no permission to write."""
    path = make_scored(tmp_path / "log.db")
    with reading(partial(SqliteLog, path), Board("events", bundle()), may_write=False) as (_, shown):
        shown.head(keys=2)
    with closing(SqliteLog(path)) as log:
        assert "events.feedback" not in {info.name for info in log.topics()}


class Flaky(SqliteLog):
    """A log that is out of reach while ``away`` is set."""

    away = threading.Event()

    def read(self, topic: str, partition: int, offset: int, max_records: int) -> list[Record]:
        """Read, or fail."""
        if self.away.is_set():
            raise LogUnavailable("the cable is out")
        return super().read(topic, partition, offset, max_records)


def test_outage_of_the_log_is_shown_and_outlived(tmp_path: Path) -> None:
    """The page says why it waits, and goes on where it was: nothing twice, nothing left out."""
    path, board = make_scored(tmp_path / "log.db"), Board("events", bundle())
    with reading(partial(Flaky, path), board) as (_, shown):
        before = shown.head(keys=2, behind=0)
        try:
            Flaky.away.set()
            make_scored(path, 50)
            assert shown.head(trouble="the cable is out")["scored"] == before["scored"]
        finally:
            Flaky.away.clear()
        after = shown.head(trouble=None, behind=0)
    assert after["scored"] == before["scored"] + 100


def test_outage_that_lasts_ends_the_reader_with_its_reason(tmp_path: Path) -> None:
    """The process ends with one sentence, as other services do."""

    def unreachable() -> SqliteLog:
        raise LogUnavailable("no route")

    with reading(unreachable, Board("events", bundle()), give_up_after_s=0.1) as (reader, shown):
        assert shown.ended.wait(PATIENCE_S)
        assert str(reader.error) == "no route"


def test_error_that_does_not_pass_ends_the_reader(tmp_path: Path) -> None:
    """Waiting would not help."""

    def wrong() -> SqliteLog:
        raise LogError("this database is no log")

    with reading(wrong, Board("events", bundle())) as (reader, shown):
        assert shown.ended.wait(PATIENCE_S)
        assert isinstance(reader.error, LogError)


def make_source(path: Path, board: Board) -> BoardSource:
    """Return what the page asks, over a log."""
    return BoardSource(board, threading.Lock(), Desk(partial(SqliteLog, path)), lambda: START_MS)


def test_past_that_memory_lacks_is_read_from_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by bisection over event times; the same series as from memory; bounded in what it reads."""
    monkeypatch.setattr(history, "PAGE", 50)
    monkeypatch.setattr(history, "SLACK_MS", 2_000)
    path = make_scored(tmp_path / "log.db", 400)
    source = make_source(path, Board("events", bundle()))
    span = START_MS + 200 * STEP_MS, START_MS + 300 * STEP_MS
    series = source.series("a", 0, span, STEP_MS, ("flow",))
    assert series["score"]["bin"] == [START_MS // STEP_MS + step for step in range(200, 301)]
    assert series["whole_until_ms"] == span[1]
    assert None not in series["features"][0]["min"]
    assert None not in series["features"][0]["low"]
    with closing(SqliteLog(path)) as log:
        assert 2 * 190 - 50 < first_offset(log, "events", 0, span[0]) <= 2 * 200
        monkeypatch.setattr(history, "MOST_SCANNED", 100)
        found = history_of(log, "events", (0, "a"), START_MS, span[1])
    assert found.whole_until_ms < span[1]
    assert 0 < len(found.stretch.points) <= 100
    source.desk.close()


@pytest.mark.parametrize("poll_records", [70, 5_000])
@pytest.mark.parametrize("span_ms", [1_000, 12_000])
def test_past_is_found_among_packed_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poll_records: int, span_ms: int
) -> None:
    """Records that hold many scores each are found by the last of them; other keys have records of one."""
    monkeypatch.setattr(history, "PAGE", 3)
    monkeypatch.setattr(pack, "PACK_MS", span_ms)
    monkeypatch.setattr(history, "SLACK_MS", 1_000 + span_ms)
    path = make_scored(tmp_path / "log.db", 400, ("a", "b"), scores="packed", poll_records=poll_records)
    source = make_source(path, Board("events", bundle()))
    for key, first in product(("a", "b"), range(60, 360, 20)):
        span = START_MS + first * STEP_MS, START_MS + (first + 30) * STEP_MS
        series = source.series(key, 0, span, STEP_MS, ("flow",))
        assert series["score"]["bin"] == [START_MS // STEP_MS + step for step in range(first, first + 31)]
        assert series["whole_until_ms"] == span[1]
        assert None not in series["features"][0]["low"]
    source.desk.close()


def test_past_of_a_key_whose_records_come_late_among_others_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One key in ten events, in records of several; all others in records of one, a transaction of thousands."""
    monkeypatch.setattr(history, "PAGE", 50)
    path = tmp_path / "log.db"
    with closing(SqliteLog(path)) as log:
        log.create_topic("events", 1)
        feed = [
            changed(make_feed(1, ("a",), start=step)[0], sensor="a" if step % 10 == 0 else f"k{step}")
            for step in range(3_000)
        ]
        log.append("events", [NewRecord(None, record.value) for record in feed])
        settings = ScoreSettings(until_end=True, scores="packed", poll_records=10_000)
        run(log, bundle(), settings, threading.Event())
        found = history_of(log, "events", (0, "a"), START_MS + 1_000 * STEP_MS, START_MS + 1_500 * STEP_MS)
    assert found.stretch.points["offset"].tolist() == list(range(1_000, 1_501, 10))
    assert found.whole_until_ms == START_MS + 1_500 * STEP_MS


def test_record_that_is_no_score_does_not_stop_the_page(tmp_path: Path) -> None:
    """It is counted as one that cannot be read, also if it begins like several scores."""
    path, board = make_scored(tmp_path / "log.db"), Board("events", bundle())
    with closing(SqliteLog(path)) as log:
        log.append("events.scores", [NewRecord(b"a", b"[oops")])
    with reading(partial(SqliteLog, path), board) as (reader, shown):
        shown.head(keys=2, behind=0)
        assert reader.error is None


def test_page_shows_packed_scores_as_any_others(tmp_path: Path) -> None:
    """Each counts, nobody waits, and the scorer is not said to tell only some."""
    path, board = make_scored(tmp_path / "log.db", scores="packed"), Board("events", bundle())
    with reading(partial(SqliteLog, path), board) as (_, shown):
        head = shown.head(keys=2, behind=0, lag=0)
    assert (head["all_told"], head["stands"]) == (True, False)
    plain = Board("events", bundle())
    with reading(partial(SqliteLog, make_scored(tmp_path / "plain.db")), plain) as (_, shown):
        assert shown.head(keys=2, behind=0)["scored"] == head["scored"]


@pytest.mark.parametrize("partition", [-1, 1])
def test_past_of_a_partition_that_is_not_there_is_refused(tmp_path: Path, partition: int) -> None:
    """A link may hold any number."""
    with (
        closing(SqliteLog(make_scored(tmp_path / "log.db"))) as log,
        pytest.raises(LogError, match=f"no partition {partition}"),
    ):
        history_of(log, "events", (partition, "a"), START_MS, START_MS + 1)


def test_feedback_is_appended_once_where_its_key_is(tmp_path: Path) -> None:
    """With who and when; an id that the board knows is not written again."""
    path = make_scored(tmp_path / "log.db")
    board = Board("events", bundle())
    source = make_source(path, board)
    said = Said("12345678", "mute", "a", 0, " ann ", minutes=15)
    source.say(said)
    with closing(SqliteLog(path)) as log:
        (record,) = log.read("events.feedback", 0, 0, 10)
        board.take_feedback([record])
        source.say(said)
        assert log.topic("events.feedback").end_offsets == (1,)
    stored = feedback.decode(record.value)
    assert (stored.who, stored.at_ms, stored.until_ms) == ("ann", START_MS, START_MS + 900_000)
    assert record.key == b"a"
    source.desk.close()


def test_desk_refuses_more_than_it_can_take(tmp_path: Path) -> None:
    """A page that asks without end does not fill the memory."""
    path, gate = make_scored(tmp_path / "log.db", 1), threading.Event()
    desk = Desk(partial(SqliteLog, path))
    asking = [threading.Thread(target=lambda: desk.ask(lambda _: gate.wait(PATIENCE_S))) for _ in range(16)]
    for thread in asking:
        thread.start()
    try:
        while desk._room._value:
            threading.Event().wait(0.01)
        with pytest.raises(LogUnavailable, match="too many look"):
            desk.ask(lambda _: None)
    finally:
        gate.set()
        for thread in asking:
            thread.join()
        desk.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "0.0.0.0"}, "others could see the page, and there is no token"),
        ({"host": "::"}, "no token"),
        ({"dashboard_token": "short"}, "shorter than 16 characters"),
    ],
)
def test_page_for_others_needs_a_token_that_cannot_be_guessed(settings: dict[str, str], message: str) -> None:
    """Refused before anything is opened; the token is not in the message."""
    with pytest.raises(SettingsError, match=message) as raised:
        dashboard.check(DashboardSettings(log="sqlite:///x", **settings))  # type: ignore[arg-type]
    assert "short'" not in str(raised.value)
    assert "short" not in repr(DashboardSettings(log="x", dashboard_token="short"))


def test_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """One sentence, with the way out."""
    with dashboard.listen(DashboardSettings(log="x", port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match="--port 0 takes a free one"):
            dashboard.listen(DashboardSettings(log="x", port=port))


@pytest.mark.parametrize(
    ("looks", "stands"),
    [
        ([(0, None, 0)], False),
        ([(0, 5, None), (9, 14, None)], False),
        ([(0, 11, 5), (9, 20, 5)], False),
        ([(0, 11, 5), (10, 21, 5)], True),
        ([(0, None, 5), (10, None, 900)], False),
        ([(0, 11, 5), (5, 16, 0), (11, 22, 5)], False),
        ([(0, 59, 0)], False),
        ([(0, 61, 0)], True),
    ],
)
def test_scorer_stands_when_events_wait_or_none_come(
    looks: list[tuple[float, int | None, int | None]], stands: bool
) -> None:
    """Not in the moment between an event and its score, nor while scores come, however many events wait."""
    standstill = Standstill()
    for now_s, quiet_s, lag in looks:
        quiet_ms = None if quiet_s is None else 1_000 * quiet_s
        found = standstill.stands(
            {"keys": 3, "quiet_ms": quiet_ms, "lag": lag, "gap_ms": 1_000.0, "all_told": True}, now_s
        )
    assert found == stands


def test_scorer_stands_before_the_first_score() -> None:
    """A page that has nothing to show is not live."""
    assert Standstill().stands({"keys": 0, "quiet_ms": None, "lag": None, "gap_ms": 1_000.0, "all_told": True}, 0.0)


@pytest.mark.parametrize(("scores", "letters", "all_told"), [
    (range(500), (), True),
    (range(0, 500, 100), (), False),
    (range(0, 500, 7), (), False),
    ((3, 499), [n for n in range(500) if n not in (3, 499)], True),
    ((7,), (), True),
    ((), (), True),
])  # fmt: skip
def test_lag_is_not_known_where_only_some_scores_are_told(
    scores: Sequence[int], letters: Sequence[int], all_told: bool
) -> None:
    """As with ``--scores anomalous``: the page does not call events waiting that were scored."""
    lag = Lag()
    for first in (0, 250):  # two looks
        part = range(first, first + 250)
        lag.take_scores([told(n, b'{"offset": %d}' % n) for n in scores if n in part])
        lag.take_letters([told(n, b"", (("offset", b"%d" % n),)) for n in letters if n in part])
    assert lag.all_told == all_told


def told(number: int, value: bytes, headers: Headers = ()) -> Record:
    """Return an output record."""
    return Record("events.scores", 0, number, 0, b"k", value, headers)


def test_scorer_that_tells_only_some_scores_is_not_said_to_stand() -> None:
    """Hours may pass without one."""
    head = {"keys": 3, "quiet_ms": 9_000_000, "lag": None, "gap_ms": 1_000.0, "all_told": False}
    assert not Standstill().stands(head, 0.0)
