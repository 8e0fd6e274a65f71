"""The event log in one SQLite file: the default engine, for one machine.

The file is in WAL mode: any number of processes read while one writes. A poll's scores, alerts, dead
letters, states and offsets are one SQLite transaction, flushed to disk (``synchronous=FULL``) before
:meth:`SqliteSession.commit` returns. A file that was deleted is still there for who has it open; so it
is looked up by its name before each commit, and on each poll that finds nothing.

Two things keep two scorers off one partition. A lock file, held by the operating system for as long
as the process lives, refuses the second with a clear message. And each commit moves the offset only
from where this scorer read it: were the lock ever to fail, the later commit is refused, not doubled.
"""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec
from filelock import FileLock, Timeout

from streamlstm.adapters.sqlite_file import connect, translated
from streamlstm.core.commit import Commit, Output
from streamlstm.core.log import Headers, NewRecord, Record, Standing, TopicInfo, check_offset
from streamlstm.core.topic import alerts_topic, dead_letters_topic, scores_topic
from streamlstm.errors import (
    Fenced,
    LogError,
    PartitionBusy,
    TopicMissing,
)

POLL_PAUSE_S = 0.02  # SQLite cannot wake a reader; an index look-up costs some 20 µs
TRIM_EVERY_MS = 10_000
MAX_POLL_BYTES = 64 << 20  # 5,000 records of a megabyte each are not taken at once


def now_ms() -> int:
    """Return the wall clock, UTC milliseconds."""
    return time.time_ns() // 1_000_000


def _no_step(step: str) -> None:
    """Do nothing between the steps of a commit; tests pass a function that crashes there."""


class SqliteLog:
    """An :class:`~streamlstm.core.log.EventLog` in one file.

    ``clock`` gives the time stamped on appended records. ``on_step`` is called with the name of each
    step of a commit as it is done.
    """

    def __init__(
        self,
        path: str | Path,
        clock: Callable[[], int] = now_ms,
        on_step: Callable[[str], None] = _no_step,
    ) -> None:
        self.path = Path(path)
        self.clock = clock
        self.on_step = on_step
        self._topic_ids: dict[str, int] = {}
        self._connection = connect(self.path)
        self._place = self.path.absolute()  # wherever the process goes
        self._identity = _identity(self._place)

    def create_topic(self, topic: str, partitions: int, retention_s: float | None = None) -> None:
        """Create the topic; one that exists must have as many partitions, and takes the retention."""
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic):  # Kafka's rule for topic names
            raise LogError(f"{topic!r} is no topic name: 1 to 249 of letters, digits, '.', '_' and '-'")
        if partitions < 1:
            raise LogError(f"topic {topic!r}: at least one partition is needed, not {partitions}")
        retention_ms = None if retention_s is None else int(retention_s * 1000)
        with self.transaction() as db:
            found = db.execute("SELECT id FROM topics WHERE name = ?", (topic,)).fetchone()
            if found:
                count = db.execute("SELECT count(*) FROM partitions WHERE topic_id = ?", found).fetchone()[0]
                if count != partitions:
                    raise LogError(
                        f"topic {topic!r} has {count} partitions, not {partitions}; keys would move between them"
                    )
                if retention_ms is not None:
                    db.execute("UPDATE topics SET retention_ms = ? WHERE id = ?", (retention_ms, found[0]))
                return
            topic_id = db.execute(
                "INSERT INTO topics (name, retention_ms) VALUES (?, ?)", (topic, retention_ms)
            ).lastrowid
            db.executemany("INSERT INTO partitions VALUES (?, ?, 0, 0)", [(topic_id, p) for p in range(partitions)])

    def topics(self) -> list[TopicInfo]:
        """Return all topics, by name."""
        return [self.topic(name) for (name,) in self._query("SELECT name FROM topics ORDER BY name")]

    def topic(self, topic: str) -> TopicInfo:
        """Return one topic; raises :class:`TopicMissing` naming those that exist."""
        topic_id = self._topic_id(topic)
        rows = self._query(
            "SELECT start_offset, end_offset FROM partitions WHERE topic_id = ? ORDER BY partition", (topic_id,)
        )
        ((retention_ms,),) = self._query("SELECT retention_ms FROM topics WHERE id = ?", (topic_id,))
        starts, ends = zip(*rows, strict=True)
        return TopicInfo(topic, starts, ends, None if retention_ms is None else retention_ms / 1000)

    def append(self, topic: str, records: Sequence[NewRecord]) -> None:
        """Append all records in one transaction; without a partition, the key's hash chooses it."""
        partitions = self.topic(topic).partitions
        outputs = []
        for record in records:
            chosen = record.partition
            if chosen is None:
                chosen = zlib.crc32(record.key or b"") % partitions
            outputs.append(Output(chosen, record.key, record.value, record.headers))
        with self.transaction() as db:
            self.write(db, topic, outputs)

    def read(self, topic: str, partition: int, offset: int, max_records: int) -> list[Record]:
        """Return committed records from ``offset`` on; see the port."""
        return self.read_up_to(topic, partition, offset, max_records, math.inf)

    def read_up_to(self, topic: str, partition: int, offset: int, max_records: int, max_bytes: float) -> list[Record]:
        """As :meth:`read`, but no further than the record with which there are ``max_bytes`` of values and headers."""
        topic_id = self._topic_id(topic)
        rows, size = [], 0
        query = (
            "SELECT offset, timestamp_ms, key, value, headers FROM records"
            " WHERE topic_id = ? AND partition = ? AND offset >= ? ORDER BY offset LIMIT ?"
        )
        where = (topic_id, partition, offset, max_records)
        with translated(self.path), closing(self._connection.execute(query, where)) as found:
            for row in found:
                rows.append(row)
                size += len(row[3]) + len(row[4] or b"")
                if size >= max_bytes:
                    break
        if not rows or rows[0][0] != offset:
            self._check_kept(topic, topic_id, partition, offset)
        return [
            Record(topic, partition, at, taken_ms, key, value, _headers(headers))
            for at, taken_ms, key, value, headers in rows
        ]

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """Return the first offset taken at or after this time; see the port."""
        rows = self._query(
            "SELECT offset FROM records WHERE topic_id = ? AND partition = ? AND timestamp_ms >= ?"
            " ORDER BY offset LIMIT 1",
            (self._topic_id(topic), partition, timestamp_ms),
        )
        return int(rows[0][0]) if rows else self.topic(topic).end_offsets[partition]

    def read_states(
        self, topic: str, group: str, keys: Iterable[tuple[int, bytes]]
    ) -> Mapping[tuple[int, bytes], bytes]:
        """Return the committed states of these keys, as far as they have one."""
        found = {}
        for partition, key in keys:
            rows = self._query(
                "SELECT value FROM states WHERE group_name = ? AND topic = ? AND partition = ? AND key = ?",
                (group, topic, partition, key),
            )
            if rows:
                found[partition, key] = rows[0][0]
        return found

    def open_session(self, topic: str, group: str) -> SqliteSession:
        """Claim all partitions of the topic for this process under ``group``; see the port."""
        info = self.topic(topic)
        lock = FileLock(f"{self.path.resolve()}.{quote(group, safe='')}@{topic}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise PartitionBusy(
                f"{self.path}: group {group!r} already reads topic {topic!r} in a live process (it holds "
                f"{lock.lock_file}); stop that one, or read under another --group"
            ) from error
        return SqliteSession(self, info, group, lock)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a write transaction: all of the block, or none of it."""
        db = self._connection
        with translated(self.path):
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                self.check_in_place()
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def check_in_place(self) -> None:
        """Raise if the file's name no longer leads to the open file: nobody would ever see what is written."""
        if _identity(self._place) != self._identity:
            raise LogError(
                f"{self.path}: the file was deleted or replaced under this process; nothing was committed. "
                "Stop all that use it before you move or delete a log"
            )

    def write(self, db: sqlite3.Connection, topic: str, outputs: Sequence[Output]) -> None:
        """Append records inside a transaction, and apply the topic's retention now and then.

        Without records there is nothing to do, and the topic need not exist.
        """
        if not outputs:
            return
        topic_id, taken_ms = self._topic_id(topic), self.clock()
        by_partition: dict[int, list[Output]] = {}
        for output in outputs:
            by_partition.setdefault(output.partition, []).append(output)
        for partition, chosen in by_partition.items():
            where = (topic_id, partition)
            found = db.execute(
                "SELECT end_offset FROM partitions WHERE topic_id = ? AND partition = ?", where
            ).fetchone()
            if not found:
                raise LogError(f"topic {topic!r} has no partition {partition}")
            (end,) = found
            db.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (topic_id, partition, end + i, taken_ms, o.key, o.value, _encode_headers(o.headers))
                    for i, o in enumerate(chosen)
                ],
            )
            db.execute(
                "UPDATE partitions SET end_offset = ? WHERE topic_id = ? AND partition = ?", (end + len(chosen), *where)
            )
        self._trim(db, topic_id, taken_ms)

    def _trim(self, db: sqlite3.Connection, topic_id: int, now: int) -> None:
        """Remove records older than the topic's retention; the last record of a partition stays."""
        retention_ms, trimmed_ms = db.execute(
            "SELECT retention_ms, trimmed_ms FROM topics WHERE id = ?", (topic_id,)
        ).fetchone()
        if retention_ms is None or now - trimmed_ms < min(TRIM_EVERY_MS, retention_ms):
            return
        db.execute("UPDATE topics SET trimmed_ms = ? WHERE id = ?", (now, topic_id))
        partitions = db.execute("SELECT partition FROM partitions WHERE topic_id = ?", (topic_id,)).fetchall()
        for (partition,) in partitions:
            (kept,) = db.execute(
                "SELECT coalesce((SELECT offset FROM records WHERE topic_id = ?1 AND partition = ?2 AND"
                " timestamp_ms >= ?3 ORDER BY offset LIMIT 1),"
                " (SELECT max(offset) FROM records WHERE topic_id = ?1 AND partition = ?2))",
                (topic_id, partition, now - retention_ms),
            ).fetchone()
            if kept is not None:
                db.execute(
                    "DELETE FROM records WHERE topic_id = ? AND partition = ? AND offset < ?",
                    (topic_id, partition, kept),
                )
                db.execute(
                    "UPDATE partitions SET start_offset = ? WHERE topic_id = ? AND partition = ?",
                    (kept, topic_id, partition),
                )

    def _check_kept(self, topic: str, topic_id: int, partition: int, offset: int) -> None:
        found = self._query(
            "SELECT start_offset, end_offset FROM partitions WHERE topic_id = ? AND partition = ?",
            (topic_id, partition),
        )
        if not found:
            raise LogError(f"topic {topic!r} has no partition {partition}")
        start, end = found[0]
        check_offset(topic, partition, offset, start, end)

    def _topic_id(self, topic: str) -> int:
        if topic not in self._topic_ids:
            found = self._query("SELECT id FROM topics WHERE name = ?", (topic,))
            if not found:
                names = [name for (name,) in self._query("SELECT name FROM topics ORDER BY name")]
                known = f"it has {', '.join(names)}" if names else "it has no topics yet"
                raise TopicMissing(f"{self.path} has no topic {topic!r}; {known}")
            self._topic_ids[topic] = found[0][0]
        return self._topic_ids[topic]

    def _query(self, sql: str, values: Sequence[object] = ()) -> list[tuple]:  # type: ignore[type-arg]
        with translated(self.path):
            return self._connection.execute(sql, values).fetchall()


class SqliteSession:
    """A :class:`~streamlstm.core.log.ScorerSession` on a :class:`SqliteLog`."""

    def __init__(self, log: SqliteLog, topic: TopicInfo, group: str, lock: FileLock) -> None:
        self._log = log
        self._topic = topic
        self._where = (group, topic.name)
        self._lock = lock
        self._next: dict[int, int] = {}
        self._write_down_start()
        self.rewind()

    def _write_down_start(self) -> None:
        """Start a group's first session at each partition's first record, and commit that it does.

        Else retention could remove, unnoticed, what the group has never yet read.
        """
        starts = self._log.topic(self._topic.name).start_offsets
        with self._log.transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO offsets VALUES (?, ?, ?, ?, 0)",
                [(*self._where, partition, start) for partition, start in enumerate(starts)],
            )

    def rewind(self) -> None:
        """Go back to the committed offsets."""
        rows = self._log._query(
            "SELECT partition, next_offset FROM offsets WHERE group_name = ? AND topic = ?", self._where
        )
        self._next = dict(rows)

    def claims(self) -> Mapping[int, int]:
        """Return all partitions: they are claimed once, at the start."""
        return dict.fromkeys(self._next, 1)

    def standing(self) -> Standing:
        """Return that all is claimed, and nothing to be read back: states stay in the file."""
        return Standing(joined=True, restoring={})

    def lag(self) -> Mapping[int, int]:
        """Return how many records of each partition are still to be polled."""
        ends = self._log.topic(self._topic.name).end_offsets
        return {partition: ends[partition] - offset for partition, offset in self._next.items()}

    def watermarks(self) -> Mapping[int, int]:
        """Return the committed watermarks (ms) per partition."""
        return dict(
            self._log._query(
                "SELECT partition, watermark_ms FROM offsets WHERE group_name = ? AND topic = ? AND watermark_ms > 0",
                self._where,
            )
        )

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Return the next records of all partitions; waits up to ``timeout_s`` for the first."""
        if max_records == 0:
            return []
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        while True:
            records: list[Record] = []
            for partition, offset in self._next.items():  # an equal share each: none starves
                share = max(1, max_records // len(self._next))
                size = MAX_POLL_BYTES / len(self._next)
                records += self._log.read_up_to(self._topic.name, partition, offset, share, size)
            if records:
                break
            if time.monotonic() >= deadline:
                self._log.check_in_place()
                break
            pause.wait(POLL_PAUSE_S)
        for record in records:
            self._next[record.partition] = record.offset + 1
        return records

    def load_states(self, keys: Iterable[tuple[int, bytes]]) -> Mapping[tuple[int, bytes], bytes]:
        """Return the committed states of these keys, as far as they have one."""
        group, topic = self._where
        return self._log.read_states(topic, group, keys)

    def commit(self, commit: Commit) -> None:
        """Store a poll, all or none.

        1. begin; 2. move the offsets, from where this session read them; 3. scores; 4. alerts;
        5. dead letters; 6. states, and forget expired ones; 7. end.
        """
        log, topic, step = self._log, self._topic.name, self._log.on_step
        with log.transaction() as db:
            step("begin")  # 1
            self._move_offsets(db, commit)  # 2
            step("offsets")
            log.write(db, scores_topic(topic), commit.scores)  # 3
            step("scores")
            log.write(db, alerts_topic(topic), commit.alerts)  # 4
            step("alerts")
            log.write(db, dead_letters_topic(topic), commit.dead_letters)  # 5
            step("dead_letters")
            self._write_states(db, commit)  # 6
            step("states")
        step("end")  # 7

    def close(self) -> None:
        """Give the partitions back."""
        self._lock.release()

    def _move_offsets(self, db: sqlite3.Connection, commit: Commit) -> None:
        for partition, (first, following) in commit.offsets.items():
            where = (*self._where, partition)
            committed, watermark_ms = db.execute(
                "SELECT next_offset, watermark_ms FROM offsets WHERE group_name = ? AND topic = ? AND partition = ?",
                where,
            ).fetchone()
            if committed != first:
                raise Fenced(
                    f"topic {self._topic.name!r} partition {partition}: this scorer read from offset {first}, but "
                    f"{committed} is committed for group {self._where[0]!r}: another scorer has taken over"
                )
            db.execute(
                "INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?, ?)",
                (*where, following, max(watermark_ms, commit.watermarks.get(partition, 0))),
            )

    def _write_states(self, db: sqlite3.Connection, commit: Commit) -> None:
        db.executemany(
            "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (*self._where, partition, key, row.value, row.timestamp_ms, row.pinned)
                for (partition, key), row in commit.states.items()
            ],
        )
        for partition, before_ms in commit.expire_before_ms.items():
            db.execute(
                "DELETE FROM states WHERE group_name = ? AND topic = ? AND partition = ? AND timestamp_ms < ?"
                " AND NOT pinned",
                (*self._where, partition, before_ms),
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from all others, whatever its name; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _encode_headers(headers: Headers) -> bytes | None:
    return msgspec.msgpack.encode(headers) if headers else None


_decode_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode


def _headers(data: bytes | None) -> Headers:
    return _decode_headers(data) if data else ()
