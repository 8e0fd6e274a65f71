"""The dashboard's desk: looks things up in the log and writes feedback, one after the other, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from streamlstm.core.log import EventLog
from streamlstm.errors import LogUnavailable

MOST_WAITING = 16
PATIENCE_S = 30.0

T = TypeVar("T")


class Desk:
    """A log of its own, opened when first needed, and anew after an outage. A log is used by one thread only."""

    def __init__(self, open_log: Callable[[], EventLog]) -> None:
        self._open = open_log
        self._log: EventLog | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="desk")
        self._room = threading.Semaphore(MOST_WAITING)

    def ask(self, what: Callable[[EventLog], T]) -> T:
        """Have something done with the log, and wait for it.

        Raises what it raises, and :class:`LogUnavailable` if too many wait already, or it takes too long.
        """
        if not self._room.acquire(blocking=False):
            raise LogUnavailable("too many look into the log's past at once; try again")
        future = self._thread.submit(self._do, what)
        future.add_done_callback(lambda _: self._room.release())
        try:
            return future.result(PATIENCE_S)
        except TimeoutError as error:
            raise LogUnavailable("the log takes too long to answer; try again") from error

    def close(self) -> None:
        """Wait for what is under way, and close the log."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=True, cancel_futures=False)

    def _do(self, what: Callable[[EventLog], T]) -> T:
        self._log = self._log or self._open()
        try:
            return what(self._log)
        except LogUnavailable:
            self._close()
            raise

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
