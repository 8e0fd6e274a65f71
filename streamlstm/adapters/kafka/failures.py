"""Why connections to brokers failed: noted as it happens, told when a call fails because of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

TELL_EVERY_S = 60.0  # per broker: a client tries again every second or two, and a process has five clients

logger = structlog.get_logger()


@dataclass(frozen=True)
class Failure:
    """A connection that failed. ``final`` if trying again cannot help: refused, by a broker that never let us in.

    One that did may change its mind back: a token is renewed, a server of passwords comes up again.
    """

    server: str
    reason: str
    final: bool
    at_s: float


@dataclass
class Failures:
    """The last failure of each broker, until a connection to it succeeds. Written by the clients' own threads.

    ``lost``: how often a broker that had been reached no longer was.
    """

    clock: Callable[[], float] = time.monotonic
    lost: int = 0
    _reached: set[str] = field(default_factory=set)
    _last: dict[str, Failure] = field(default_factory=dict)
    _told_s: dict[str, float] = field(default_factory=dict)

    def note(self, server: str, reason: str, *, refused: bool) -> None:
        """Note that a connection failed, or was lost; ``reason`` is for the operator."""
        first, now_s = server not in self._reached, self.clock()
        self.lost += not first and server not in self._last
        self._last[server] = Failure(server, reason, refused and first, now_s)
        if not first and now_s - self._told_s.get(server, -TELL_EVERY_S) >= TELL_EVERY_S:
            self._told_s[server] = now_s
            logger.warning("no connection", broker=server, reason=reason)

    def reached(self, server: str) -> None:
        """Note that a connection succeeded, log-in included."""
        self._reached.add(server)
        self._last.pop(server, None)

    def since(self, start_s: float) -> list[Failure]:
        """Return the failures since a moment of the clock, final ones first."""
        found = [failure for failure in list(self._last.values()) if failure.at_s >= start_s]
        return sorted(found, key=lambda failure: (not failure.final, -failure.at_s))
