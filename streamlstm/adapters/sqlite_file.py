"""The file under the SQLite log: how it is opened, its tables, and what its errors mean."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamlstm.errors import LogError, LogUnavailable

FORMAT = 1  # PRAGMA user_version of the file
BUSY_TIMEOUT_S = 30.0  # how long a writer waits for another one
BUSY_PAUSE_S = 0.02

_TABLES = """
CREATE TABLE topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, retention_ms INTEGER, trimmed_ms INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE partitions (
    topic_id INTEGER NOT NULL, partition INTEGER NOT NULL, start_offset INTEGER NOT NULL, end_offset INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition)
) WITHOUT ROWID;
CREATE TABLE records (
    topic_id INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL,
    key BLOB, value BLOB NOT NULL, headers BLOB,
    PRIMARY KEY (topic_id, partition, offset)
) WITHOUT ROWID;
CREATE TABLE offsets (
    group_name TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL, watermark_ms INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition)
) WITHOUT ROWID;
CREATE TABLE states (
    group_name TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, key BLOB NOT NULL,
    value BLOB NOT NULL, timestamp_ms INTEGER NOT NULL, pinned INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition, key)
);
CREATE INDEX states_by_age ON states (group_name, topic, partition, timestamp_ms) WHERE NOT pinned;
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, and make its tables if it is new."""
    if not path.parent.is_dir():
        raise LogError(f"{path}: there is no directory {path.parent}")
    with translated(path):
        # By one thread at a time, but not always the same: a commit may be stored beside the scoring.
        db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            found = _prepare(db)
        except BaseException:
            db.close()
            raise
    if found != FORMAT:
        db.close()
        what = f"a log of another release (format {found}, this one reads {FORMAT})" if found else "no log"
        raise LogError(f"{path}: this database is {what}")
    return db


def _prepare(db: sqlite3.Connection) -> int | None:
    """Set the connection up, and make the tables if the file is new; return the format of the file."""
    if (found := _format(db)) not in (None, FORMAT):
        return found  # not ours: not even its journal mode is touched
    _use_wal(db)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("BEGIN IMMEDIATE")
    if _format(db) is None:
        for statement in _TABLES.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {FORMAT}")
    db.execute("COMMIT")
    return FORMAT


def _format(db: sqlite3.Connection) -> int | None:
    """Return the format of the file, 0 if it is another program's; None if it is empty."""
    ((tables,),) = db.execute("SELECT count(*) FROM sqlite_master")
    ((found,),) = db.execute("PRAGMA user_version")  # second: another process may be making both, at once
    return int(found) if tables else None


def _use_wal(db: sqlite3.Connection) -> None:
    """Set the journal mode; alone among statements it fails at once, timeout or not, while another writes.

    It happens where several services are the first to open a file.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    pause = threading.Event()
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            pause.wait(BUSY_PAUSE_S)
        else:
            return


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, with the file's name."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise LogUnavailable(f"{path}: {error}; nothing was committed") from error
    except sqlite3.DatabaseError as error:
        raise LogError(f"{path}: {error}") from error
