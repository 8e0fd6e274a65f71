"""The collector is set for polls, and given back as it was."""

from __future__ import annotations

import gc
import weakref

import pytest

from streamlstm.services.collector import OBJECTS, collected_seldom


class Cycle:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def test_cycles_are_looked_for_seldom_but_found() -> None:
    """Those that were there before are left alone meanwhile."""
    gc.collect()
    old = weakref.ref(kept := Cycle())
    with collected_seldom():
        assert gc.get_threshold()[0] == OBJECTS
        del kept
        new = weakref.ref(Cycle())
        gc.collect()
        assert new() is None
        assert old() is not None
    gc.collect()
    assert old() is None


def test_collector_is_given_back_as_it_was() -> None:
    """Also after an error."""
    before = gc.get_threshold()
    with pytest.raises(KeyError), collected_seldom():
        raise KeyError
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
