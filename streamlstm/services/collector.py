"""Python's collector of cyclic garbage, in a process that takes thousands of records at a time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS = 50_000  # new ones, after which cycles are looked for; Python's own 700 come with a hundred records


@contextmanager
def collected_seldom() -> Iterator[None]:
    """Look for cycles seldom, and never among what is there already.

    Nearly all that a poll makes goes with its commit, without the collector. That looked through them a thousand times
    for 50,000 events, took a tenth of the time, and found nothing that had come from a poll; memory is the same.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
