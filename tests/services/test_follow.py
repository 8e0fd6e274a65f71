"""Following a topic: everything once and in order, whatever comes, goes or is missing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import NewRecord
from streamlstm.services.follow import Follower, last, since

TOPIC = "events"


def append(log: SqliteLog, *values: int, partition: int = 0) -> None:
    """Append numbers."""
    log.append(TOPIC, [NewRecord(b"k", b"%d" % value, partition=partition) for value in values])


def values(log: SqliteLog, follower: Follower, max_records: int = 100) -> list[int]:
    """Return the numbers that are new."""
    return [int(record.value) for record in follower.read(log, max_records)]


def test_topic_is_followed_from_before_it_exists(tmp_path: Path) -> None:
    """First nothing, then all there is, then what is new, in pieces."""
    with closing(SqliteLog(tmp_path / "log.db")) as log:
        follower = Follower(TOPIC, last(100))
        assert values(log, follower) == []
        log.create_topic(TOPIC, 2)
        append(log, 1, 2, 3)
        append(log, 4, partition=1)
        assert values(log, follower, 2) == [1, 2, 4]
        assert follower.behind() == 1
        assert values(log, follower, 2) == [3]
        assert follower.behind() == 0
        append(log, 5, partition=1)
        assert values(log, follower) == [5]


def test_start_is_so_many_records_back_or_at_a_time(tmp_path: Path) -> None:
    """A bounded look back, however long the topic is."""
    now = [1_000]
    with closing(SqliteLog(tmp_path / "log.db", clock=lambda: now[0])) as log:
        log.create_topic(TOPIC, 1)
        append(log, 1, 2, 3)
        now[0] = 2_000
        append(log, 4)
        assert values(log, Follower(TOPIC, last(2))) == [3, 4]
        assert values(log, Follower(TOPIC, since(1_500))) == [4]
        assert values(log, Follower(TOPIC, since(9_000))) == []


def test_what_retention_took_is_counted_not_waited_for(tmp_path: Path) -> None:
    """A page that was behind goes on with what is left, and can say what it missed."""
    now = [0]
    with closing(SqliteLog(tmp_path / "log.db", clock=lambda: now[0])) as log:
        log.create_topic(TOPIC, 1, retention_s=1)
        append(log, 1, 2)
        follower = Follower(TOPIC, last(100))
        assert values(log, follower, 1) == [1]
        now[0] = 60_000
        append(log, 3)
        now[0] = 120_000
        append(log, 4)
        assert values(log, follower) == [4]
        assert follower.skipped == 2
