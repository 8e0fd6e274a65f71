"""Arrays at cache lines: the same numbers, elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from streamlstm.core.aligned import CACHE_LINE, aligned, aligned_zeros


class Inner(NamedTuple):
    """A tuple within a tuple."""

    matrices: tuple[np.ndarray, ...]
    number: int


class Outer(NamedTuple):
    """What has arrays of several kinds and depths."""

    inner: Inner
    vector: np.ndarray
    text: str | None


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (16, 64), (2, 3, 4)])
def test_zeros_begin_at_a_cache_line(shape: tuple[int, ...]) -> None:
    """They are zero, float32, contiguous and writable."""
    zeros = aligned_zeros(*shape)
    assert zeros.ctypes.data % CACHE_LINE == 0 or zeros.size == 0
    assert zeros.shape == shape
    assert zeros.dtype == np.float32
    assert zeros.flags.c_contiguous
    assert zeros.flags.writeable
    assert not zeros.any()


def test_arrays_of_a_tuple_at_any_depth_are_copied_to_cache_lines() -> None:
    """Types, values and all else stay; what was given is not touched."""
    off = np.arange(100, dtype=np.float64)[1:]
    given = Outer(Inner((np.arange(12, dtype=np.float32).reshape(3, 4), np.zeros((0, 4), np.float32)), 7), off, None)
    found = aligned(given)
    assert isinstance(found, Outer)
    assert isinstance(found.inner, Inner)
    assert (found.inner.number, found.text) == (7, None)
    for one, other in zip((*given.inner.matrices, given.vector), (*found.inner.matrices, found.vector), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()
        assert other.size == 0 or other.ctypes.data % CACHE_LINE == 0
        assert not np.shares_memory(one, other)
