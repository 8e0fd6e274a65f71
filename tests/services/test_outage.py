"""Waiting while the log is out of reach."""

from __future__ import annotations

import gc
import weakref

import pytest

from streamlstm.errors import LogUnavailable
from streamlstm.services.outage import FIRST_WAIT_S, LONGEST_WAIT_S, Outage


def test_waits_longer_each_time_and_anew_after_it_was_over() -> None:
    """Up to a limit."""
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return False

    outage = Outage(60.0, wait)
    for _ in range(8):
        outage.wait(LogUnavailable("gone"))
    outage.over()
    outage.wait(LogUnavailable("gone again"))
    assert waited[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waited[7:] == [LONGEST_WAIT_S, FIRST_WAIT_S]


def test_gives_up_with_the_error() -> None:
    """Once it has lasted too long."""
    outage = Outage(-1.0, lambda _: False)
    with pytest.raises(LogUnavailable, match="gone"):
        outage.wait(LogUnavailable("gone"))


def test_what_failed_tries_left_behind_is_freed_with_its_sockets() -> None:
    """A client's failed try is a cycle that holds a socket; the collector looks for cycles seldom."""

    class Try:
        def __init__(self) -> None:
            self.itself = self

    gc.disable()
    try:
        left = weakref.ref(Try())
        Outage(60.0, lambda _: False).wait(LogUnavailable("gone"))
        assert left() is None
    finally:
        gc.enable()
