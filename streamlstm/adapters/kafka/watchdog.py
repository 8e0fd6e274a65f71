"""Notices that an answer does not come, where a client waits for ever."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

LOOK_EVERY_S = 1.0
STANDARD_ERROR = 2

logger = structlog.get_logger()


class Watchdog:
    """Calls ``on_stuck``, once, with what is being done when that takes ``limit_s``. Used by one thread at a time.

    One thread watches for as long as this is open: to start one for each transaction cost each a millisecond.
    """

    def __init__(self, limit_s: float, on_stuck: Callable[[str], None]) -> None:
        self._limit_s, self._on_stuck = limit_s, on_stuck
        self._watched: tuple[float, str] | None = None  # until when (monotonic, s), and what
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Watch over a block."""
        self._watched = time.monotonic() + self._limit_s, what
        try:
            yield
        finally:
            self._watched = None

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def _run(self) -> None:
        told = None
        while not self._closed.wait(min(LOOK_EVERY_S, self._limit_s / 4)):
            watched = self._watched
            if watched is not None and watched is not told and time.monotonic() >= watched[0]:
                told = watched
                self._on_stuck(watched[1])


def end_process(what: str) -> None:
    """End a process that waits for an answer that does not come, and show where; a supervisor starts it again."""
    faulthandler.dump_traceback(STANDARD_ERROR)
    logger.critical("stuck, ending the process", waiting_for=what)
    os._exit(70)
