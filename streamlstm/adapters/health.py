"""Three questions about a service, and their answers: has it started, is it alive, is it ready?"""

from __future__ import annotations

import time
from collections.abc import Callable

from streamlstm.core.log import Standing


class Health:
    """What is known of a service's loop; written by its thread, read by those of probes.

    ``stalled_after_s``: with no turn of the loop for so long, the process is not alive, whatever it still
    answers. ``clock`` gives seconds and never goes back.
    """

    def __init__(self, stalled_after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stalled_after_s, self._clock = stalled_after_s, clock
        self._turned_s = clock()
        self._polled = False
        self._available = True
        self._standing = Standing(joined=False, restoring={})

    def polled(self, standing: Standing) -> None:
        """Note a turn of the loop."""
        self._turned_s = self._clock()
        self._polled, self._standing = True, standing

    def unavailable(self) -> None:
        """Note a turn of the loop that found the log out of reach."""
        self._turned_s = self._clock()
        self._available = False

    def available(self) -> None:
        """Note a turn of the loop, or a part of one, in which the log answered and took what there was to commit."""
        self._turned_s = self._clock()
        self._available = True

    def not_started(self) -> str:
        """Return why the service has not started yet; empty once it has polled."""
        return "" if self._polled else "has not polled yet"

    def not_alive(self) -> str:
        """Return why the process should be replaced; empty while its loop turns, also while the log is away."""
        silent_s = self._clock() - self._turned_s
        return f"no turn of the loop for {silent_s:.0f} s" if silent_s > self._stalled_after_s else ""

    def not_ready(self) -> str:
        """Return why the service does no work now; empty if it does, or stands by for want of partitions."""
        if reason := self.not_started() or self.not_alive():
            return reason
        if not self._available:
            return "the log is out of reach, or did not take the last commit"
        if not self._standing.joined:
            return "not in the group yet"
        if self._standing.restoring:
            return f"reading states of partitions {', '.join(map(str, sorted(self._standing.restoring)))}"
        return ""
