"""The collector is set for polls, and given back as it was; so is memory."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
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


BACKLOG = """
import os
from streamlstm.services.collector import give_back
from tests.soak.memory import resident_mib
kept, records = [], []
for _ in range(2_000):
    records.append(b"x" * 50_000)
    kept.append(bytearray(1_000))
del records
full = resident_mib(os.getpid())
give_back()
print(full - resident_mib(os.getpid()))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to give memory back")
def test_free_memory_between_what_is_in_use_is_given_back() -> None:
    """As after a backlog: 100 MiB of records went, small things that came between them stay."""
    done = subprocess.run([sys.executable, "-c", BACKLOG], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 50
