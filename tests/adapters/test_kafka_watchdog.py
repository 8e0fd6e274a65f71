"""The watchdog over what a client would wait for for ever."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from streamlstm.adapters.kafka.watchdog import Watchdog

LIMIT_S = 0.02


@contextmanager
def dog() -> Iterator[tuple[Watchdog, queue.Queue[str]]]:
    """Yield a watchdog, and what it says."""
    said: queue.Queue[str] = queue.Queue()
    with closing(Watchdog(LIMIT_S, said.put)) as watchdog:
        yield watchdog, said


def test_what_takes_too_long_is_named_once() -> None:
    """… and the next that does, too."""
    with dog() as (watchdog, said):
        for what in ("one", "two"):
            with watchdog.watch(what):
                assert said.get(timeout=10) == what
                with pytest.raises(queue.Empty):
                    said.get(timeout=10 * LIMIT_S)


def test_what_has_ended_is_not_named() -> None:
    """However it ended."""
    with dog() as (watchdog, said):
        with watchdog.watch("done"):
            pass
        with pytest.raises(KeyError), watchdog.watch("failed"):
            raise KeyError
        with pytest.raises(queue.Empty):
            said.get(timeout=10 * LIMIT_S)


def test_closed_one_ends_its_thread() -> None:
    """A session that is opened again leaves none behind."""
    before = set(threading.enumerate())
    with dog():
        (thread,) = set(threading.enumerate()) - before
    thread.join(10)
    assert not thread.is_alive()
