"""What is pushed: the newest state, and how it differs from the one before. A slow reader skips what it missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Frame:
    """A state of the page. ``change`` turns state ``number - 1`` into this one; ``encode`` makes the whole, once."""

    number: int
    change: bytes | None
    encode: Callable[[], bytes]
    _whole: bytes | None = field(default=None, repr=False)

    def whole(self) -> bytes:
        """Return the whole state."""
        if self._whole is None:
            self._whole = self.encode()
        return self._whole


class Hub:
    """Hands the newest frame to any number of readers; keeps nothing for those who are slow. For one event loop."""

    def __init__(self) -> None:
        self.readers = 0
        self.closed = False
        self.newest: Frame | None = None
        self._came = asyncio.Event()

    def publish(self, frame: Frame) -> None:
        """Replace the newest frame, and wake who waits."""
        self.newest = frame
        self._wake()

    def close(self) -> None:
        """Let all readers end."""
        self.closed = True
        self._wake()

    async def after(self, number: int | None) -> Frame | None:
        """Wait for a frame other than this one; None when there will be no more."""
        while not self.closed:
            if self.newest is not None and self.newest.number != number:
                return self.newest
            await self._came.wait()
        return None

    def _wake(self) -> None:
        came, self._came = self._came, asyncio.Event()
        came.set()
