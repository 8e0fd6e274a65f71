"""The SQLite engine beyond the contract: files, formats, faults of the disk, retention."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from streamlstm.adapters import sqlite_file, sqlite_log
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.commit import Commit, Output, StateRow
from streamlstm.core.log import NewRecord, ScorerSession
from streamlstm.errors import LogError, LogUnavailable, PartitionBusy

STEPS = ["begin", "offsets", "scores", "alerts", "dead_letters", "states", "end"]
RETENTION_S = 60.0


def make_log(path: Path, records: int = 4) -> SqliteLog:
    """Return a log with a filled input topic and its output topics."""
    log = SqliteLog(path)
    for topic in ("events", "events.scores", "events.alerts", "events.dead-letters"):
        log.create_topic(topic, 1)
    log.append("events", [NewRecord(b"k", str(i).encode()) for i in range(records)])
    return log


def make_commit(first: int, following: int) -> Commit:
    """Return a commit with one of everything."""
    output = [Output(0, b"k", b"v")]
    states = {(0, b"k"): StateRow(b"state", 1, pinned=False)}
    return Commit(output, output, output, states, {0: (first, following)}, {0: 1})


def stored(log: SqliteLog) -> tuple[int, ...]:
    """Return the number of scores, alerts, dead letters and states."""
    topics = ("events.scores", "events.alerts", "events.dead-letters")
    return (
        *(log.topic(topic).end_offsets[0] for topic in topics),
        len(log.read_states("events", "g", [(0, b"k")])),
    )


class Stop(Exception):
    """Raised by a test in the middle of a commit."""


def test_commit_names_its_steps_in_order(tmp_path: Path) -> None:
    """The crash tests rely on a call between any two steps."""
    steps: list[str] = []
    log = make_log(tmp_path / "log.db")
    log.on_step = steps.append
    session = log.open_session("events", "g")
    session.commit(make_commit(0, 4))
    assert steps == STEPS
    session.close()
    log.close()


@pytest.mark.parametrize("last", STEPS[:-1])
def test_commit_that_raises_between_two_steps_leaves_nothing(tmp_path: Path, last: str) -> None:
    """Whatever happens inside, the transaction is rolled back, and the log can be used at once."""

    def stop_after(step: str) -> None:
        if step == last:
            raise Stop

    log = make_log(tmp_path / "log.db")
    session = log.open_session("events", "g")
    log.on_step = stop_after
    with pytest.raises(Stop):
        session.commit(make_commit(0, 4))
    assert stored(log) == (0, 0, 0, 0)
    log.on_step = lambda step: None
    session.rewind()
    assert len(session.poll(10, 0.0)) == 4
    session.commit(make_commit(0, 4))
    assert stored(log) == (1, 1, 1, 1)
    session.close()
    log.close()


def test_reader_sees_nothing_of_a_commit_under_way(tmp_path: Path) -> None:
    """Until the transaction ends, other connections see the log as it was; afterwards all of it."""
    log, reader = make_log(tmp_path / "log.db"), SqliteLog(tmp_path / "log.db")
    seen = []
    session = log.open_session("events", "g")
    log.on_step = lambda step: seen.append(stored(reader))
    session.commit(make_commit(0, 4))
    assert seen == [(0, 0, 0, 0)] * 6 + [(1, 1, 1, 1)]
    session.close()
    log.close()
    reader.close()


def test_commit_to_a_full_disk_is_unavailable_and_leaves_nothing(tmp_path: Path) -> None:
    """A full disk is a passing fault: nothing is stored, and the same commit works once there is room."""
    log = make_log(tmp_path / "log.db")
    session = log.open_session("events", "g")
    (pages,) = log._connection.execute("PRAGMA page_count").fetchone()
    log._connection.execute(f"PRAGMA max_page_count = {pages}")
    large = Commit([Output(0, b"k", bytes(100_000))], [], [], {}, {0: (0, 4)}, {0: 1})
    with pytest.raises(LogUnavailable, match=r"log\.db: database or disk is full; nothing was committed"):
        session.commit(large)
    assert stored(log) == (0, 0, 0, 0)
    log._connection.execute("PRAGMA max_page_count = 1000000")
    session.commit(large)
    assert stored(log) == (1, 0, 0, 0)
    session.close()
    log.close()


def test_write_while_another_one_writes_is_unavailable_after_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer waits for the other, but not for ever."""
    log = make_log(tmp_path / "log.db")
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.01)
    other = SqliteLog(tmp_path / "log.db")
    with log.transaction(), pytest.raises(LogUnavailable, match="database is locked"):
        other.append("events", [NewRecord(b"k", b"v")])
    other.append("events", [NewRecord(b"k", b"v")])
    assert log.topic("events").end_offsets == (5,)
    log.close()
    other.close()


def test_open_of_a_file_that_is_no_database_names_it(tmp_path: Path) -> None:
    """A wrong path ends with a sentence, and the file is left as it was."""
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, and no database at all; " * 20)
    with pytest.raises(LogError, match=r"notes\.txt: file is not a database"):
        SqliteLog(path)
    assert path.read_text().startswith("these are notes")


def test_open_of_a_file_of_another_release_is_refused(tmp_path: Path) -> None:
    """A file of a later format is not guessed at."""
    SqliteLog(tmp_path / "log.db").close()
    db = sqlite3.connect(tmp_path / "log.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LogError, match=r"log of another release \(format 99, this one reads 1\)"):
        SqliteLog(tmp_path / "log.db")


def test_open_of_another_programs_database_is_refused(tmp_path: Path) -> None:
    """A database that holds something else gets no tables of ours."""
    db = sqlite3.connect(tmp_path / "accounts.db")
    db.execute("CREATE TABLE accounts (id INTEGER)")
    with pytest.raises(LogError, match=r"accounts\.db: this database is no log"):
        SqliteLog(tmp_path / "accounts.db")
    assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("accounts",)]
    assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    db.close()


def test_open_in_a_missing_directory_names_it(tmp_path: Path) -> None:
    """A log is made where one asks for it, but no directories are."""
    with pytest.raises(LogError, match=r"there is no directory .*nowhere"):
        SqliteLog(tmp_path / "nowhere" / "log.db")


def test_open_leaves_the_log_durable_and_open_to_readers(tmp_path: Path) -> None:
    """Write-ahead logging lets readers read while one writes; every commit reaches the disk."""
    log = SqliteLog(tmp_path / "log.db")
    assert log._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert log._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    log.close()


def test_open_of_a_new_file_while_another_process_makes_it_waits(tmp_path: Path) -> None:
    """Services that are started together may all be the first; none fails because of the others."""
    first = sqlite3.connect(tmp_path / "log.db", isolation_level=None, check_same_thread=False)
    first.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.1, first.execute, ("ROLLBACK",))
    release.start()
    log = SqliteLog(tmp_path / "log.db")
    assert log.topics() == []
    release.join()
    first.close()
    log.close()


def test_states_survive_the_process(tmp_path: Path) -> None:
    """A closed and opened log has offsets, watermarks and states as they were committed."""
    log = make_log(tmp_path / "log.db")
    session = log.open_session("events", "g")
    session.commit(make_commit(0, 3))
    session.close()
    log.close()
    log = SqliteLog(tmp_path / "log.db")
    session = log.open_session("events", "g")
    assert [record.offset for record in session.poll(10, 0.0)] == [3]
    assert session.load_states([(0, b"k")]) == {(0, b"k"): b"state"}
    session.close()
    log.close()


def test_keys_have_the_same_partition_in_every_process_and_release(tmp_path: Path) -> None:
    """Where a key goes is written down here: were it to change, keys would move away from their states."""
    log = SqliteLog(tmp_path / "log.db")
    log.create_topic("events", 8)
    keys = [b"a", b"b", b"pump-7", b"pump-8", "größe".encode(), b"\xff", b"", None]
    for key in keys:
        log.append("events", [NewRecord(key, b"v")])
    homes = {record.key: p for p in range(8) for record in log.read("events", p, 0, 10)}
    assert [homes[key] for key in keys] == [3, 1, 3, 2, 1, 0, 0, 0]
    log.close()


def test_lock_is_released_when_the_owner_forgets_to_close(tmp_path: Path) -> None:
    """The claim belongs to the open lock file, so that nothing has to be cleaned up by hand."""
    log = make_log(tmp_path / "log.db")
    session: ScorerSession | None = log.open_session("events", "g")
    with pytest.raises(PartitionBusy, match=r"log\.db\..*\.lock"):
        log.open_session("events", "g")
    del session
    log.open_session("events", "g").close()
    log.close()


def delete(path: Path) -> None:
    """Delete a log with the files beside it."""
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def replace(path: Path) -> None:
    """Delete a log, and make another one in its place."""
    delete(path)
    make_log(path).close()


@pytest.mark.parametrize("change", [delete, replace])
def test_commit_to_a_file_that_was_deleted_or_replaced_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    """SQLite would go on writing to the deleted file, where nobody finds it; waiting would not help either."""
    path = tmp_path / "log.db"
    log = make_log(path)
    session = log.open_session("events", "g")
    monkeypatch.chdir("/")
    session.commit(make_commit(0, 3))
    change(path)
    with pytest.raises(LogError, match=r"log\.db: the file was deleted or replaced under this process") as raised:
        session.commit(make_commit(3, 4))
    assert not isinstance(raised.value, LogUnavailable)
    assert stored(log) == (1, 1, 1, 1)
    session.close()
    log.close()


@pytest.mark.parametrize("change", [delete, replace])
def test_poll_of_a_file_that_was_deleted_or_replaced_is_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Nothing new ever comes from a deleted file, so a scorer that waits would wait for ever."""
    path = tmp_path / "log.db"
    log = make_log(path, records=0)
    session = log.open_session("events", "g")
    assert session.poll(10, 0.0) == []
    change(path)
    with pytest.raises(LogError, match="deleted or replaced"):
        session.poll(10, 0.0)
    session.close()
    log.close()


def test_file_may_be_opened_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that changes its directory has not lost the file."""
    monkeypatch.chdir(tmp_path)
    log = make_log(Path("log.db"))
    monkeypatch.chdir("/")
    log.append("events", [NewRecord(b"k", b"v")])
    assert log.topic("events").end_offsets == (5,)
    log.close()


def make_aging_log(path: Path, now_s: list[float]) -> SqliteLog:
    """Return a log whose clock reads ``now_s[0]``, with a topic that keeps records for a minute."""
    log = SqliteLog(path, clock=lambda: int(now_s[0] * 1000))
    log.create_topic("events", 2, RETENTION_S)
    return log


def test_retention_keeps_the_newest_record_of_each_partition_that_is_written_to(tmp_path: Path) -> None:
    """Trimming follows appends: what is older than the retention goes, the appended record stays."""
    now_s = [1000.0]
    log = make_aging_log(tmp_path / "log.db", now_s)
    log.append("events", [NewRecord(b"k", b"old", partition=0)] * 3)
    now_s[0] += RETENTION_S
    log.append("events", [NewRecord(b"k", b"young", partition=0)])
    assert log.topic("events").start_offsets == (0, 0)
    now_s[0] += RETENTION_S / 2
    log.append("events", [NewRecord(b"k", b"new", partition=0)])
    assert [record.value for record in log.read("events", 0, 3, 10)] == [b"young", b"new"]
    assert log.topic("events").start_offsets == (3, 0)
    log.close()


def test_retention_trims_partitions_that_fell_silent(tmp_path: Path) -> None:
    """A partition whose keys are gone does not keep their records for ever, only the last one."""
    now_s = [1000.0]
    log = make_aging_log(tmp_path / "log.db", now_s)
    log.append("events", [NewRecord(b"k", b"old", partition=1)] * 3)
    now_s[0] += 2 * RETENTION_S
    log.append("events", [NewRecord(b"k", b"new", partition=0)])
    assert (log.topic("events").start_offsets, log.topic("events").end_offsets) == ((0, 2), (1, 3))
    assert [record.offset for record in log.read("events", 1, 2, 10)] == [2]
    log.close()


def test_retention_trims_now_and_then_not_at_each_append(tmp_path: Path) -> None:
    """Trimming costs a search; it is done every ten seconds at most."""
    now_s = [1000.0]
    log = make_aging_log(tmp_path / "log.db", now_s)
    log.append("events", [NewRecord(b"k", b"old", partition=0)])
    now_s[0] += RETENTION_S - 1
    log.append("events", [NewRecord(b"k", b"trims nothing", partition=0)])
    now_s[0] += 2
    log.append("events", [NewRecord(b"k", b"too early to trim again", partition=0)])
    assert log.topic("events").start_offsets == (0, 0)
    now_s[0] += 8
    log.append("events", [NewRecord(b"k", b"trims", partition=0)])
    assert log.topic("events").start_offsets == (1, 0)
    log.close()


def test_poll_with_one_full_partition_does_not_starve_the_others(tmp_path: Path) -> None:
    """A partition with a long backlog leaves room for the others in every poll."""
    log = SqliteLog(tmp_path / "log.db")
    log.create_topic("events", 3)
    for partition, count in enumerate([1000, 2, 2]):
        log.append("events", [NewRecord(b"k", b"v", partition=partition)] * count)
    session = log.open_session("events", "g")
    assert {record.partition for record in session.poll(9, 0.0)} == {0, 1, 2}
    session.close()
    log.close()


def test_poll_of_large_records_takes_few_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll is bounded in bytes, too: thousands of records of a megabyte each are not taken into memory at once."""
    monkeypatch.setattr(sqlite_log, "MAX_POLL_BYTES", 1_000)
    log = make_log(tmp_path / "log.db", records=0)
    log.append("events", [NewRecord(b"k", b"x" * 300, (("h", b"y" * 100),)) for _ in range(10)])
    log.append("events", [NewRecord(b"k", b"x" * 5_000)])
    session = log.open_session("events", "g")
    polls = [[record.offset for record in session.poll(100, 0.0)] for _ in range(5)]
    assert polls == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10], []]
    assert len(log.read("events", 0, 0, 100)) == 11
    session.close()
    log.close()
