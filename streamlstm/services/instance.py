"""The name of a process in its consumer group: the same after a restart, another for each live process of a host."""

from __future__ import annotations

import getpass
import itertools
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def instance_name(given: str | None, group: str, directory: Path | None = None) -> Iterator[str]:
    """Yield ``given``, or HOST-0, HOST-1 … : the first that no live process of this host holds in this group.

    Held by a lock file, which the operating system gives back however the process ends: a process
    started after a crash is taken for the one that crashed, and gets its partitions at once.
    """
    if given:
        yield given
        return
    directory = directory or Path(tempfile.gettempdir()) / f"streamlstm-{getpass.getuser()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    for number in itertools.count():
        name = f"{socket.gethostname()}-{number}"
        lock = FileLock(directory / f"{group.encode().hex()}@{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield name
        finally:
            lock.release()
        return
