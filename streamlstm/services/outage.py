"""Wait while the log is out of reach."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import structlog

from streamlstm.core.observer import NOBODY, Observer
from streamlstm.errors import LogUnavailable

FIRST_WAIT_S = 0.2  # before the first new try; doubled up to LONGEST_WAIT_S
LONGEST_WAIT_S = 10.0

logger = structlog.get_logger()


class Outage:
    """Waits longer and longer while the log is out of reach; gives up in the end."""

    def __init__(self, give_up_after_s: float, wait: Callable[[float], bool], observer: Observer = NOBODY) -> None:
        self._give_up_after_s = give_up_after_s
        self._wait, self._observer = wait, observer
        self._since_s: float | None = None
        self._wait_s = FIRST_WAIT_S

    def wait(self, error: LogUnavailable) -> None:
        """Wait before the next try, or raise ``error`` again if it has lasted too long."""
        self._observer.unavailable()
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s > self._give_up_after_s:
            raise error
        logger.warning("log out of reach, waiting", error=str(error), wait_s=self._wait_s)
        gc.collect()  # a client's failed tries leave cycles behind, with a socket in each (kafka-python 3.0.12)
        self._wait(self._wait_s)
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def over(self) -> None:
        """Note that the log answered."""
        self._observer.available()
        if self._since_s is not None:
            logger.info("log in reach again", outage_s=round(time.monotonic() - self._since_s, 1))
        self._since_s, self._wait_s = None, FIRST_WAIT_S
