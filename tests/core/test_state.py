"""Rows of keys: their layout, their bytes, and the arena that holds the latest ones in memory."""

from __future__ import annotations

import numpy as np
import pytest

from streamlstm.core.model import Architecture
from streamlstm.core.state import (
    EVENTS,
    INTEGERS,
    SCALER,
    SCORED,
    TAIL_FLOATS,
    Arena,
    Key,
    Rows,
    check_numbers,
    from_bytes,
    layout_of,
    to_bytes,
)

ARCHITECTURE = Architecture(values=2, inputs=2, hidden=4, layers=2, horizon=3, embedding=8)
LAYOUT = layout_of(ARCHITECTURE)
TAIL = (1.5, 0.5)
A, B, C = (0, b"a"), (0, b"b"), (1, b"a")


def rows(*numbers: int) -> Rows:
    """Return rows that each hold one number everywhere."""
    column = np.array(numbers)[:, None]
    return Rows(np.tile(column, INTEGERS).astype(np.int64), np.tile(column, LAYOUT.width).astype(np.float32))


def arena(max_keys: int = 10, **numbers: int) -> Arena:
    """Return an arena that holds keys of partition 0 with their numbers."""
    filled = Arena(LAYOUT, max_keys)
    for key, number in numbers.items():
        filled.put([(0, key.encode())], rows(number))
    return filled


def number_of(arena: Arena, key: Key) -> int:
    """Return the number in a key's row, 0 if it is fresh."""
    return int(arena.gather([key], TAIL).integers[0, EVENTS])


def test_layout_sections_follow_each_other_and_have_their_sizes() -> None:
    """Hidden and cell of every layer, a triangle of waiting forecasts, channels, three tails, episode."""
    sizes = np.diff(LAYOUT)
    assert sizes.tolist() == [8, 8, (1 + 2 + 3) * 2 * 2, 4 + (9 + 2) * 2, 3 * 2, 2]
    assert LAYOUT.hidden == 0


def test_row_as_bytes_read_back_is_the_same_row() -> None:
    """Every bit of a row survives, the odd ones too."""
    row = rows(-(2**62))
    row.floats[0, :4] = [np.float32(1e-45), -0.0, np.finfo(np.float32).max, 0.1]
    (data,) = to_bytes(row)
    again = from_bytes(data, LAYOUT)
    assert np.array_equal(again.integers, row.integers)
    assert again.floats.tobytes() == row.floats.tobytes()


def test_rows_as_bytes_do_not_depend_on_their_neighbours() -> None:
    """Each row is written by itself, integers before floats, little-endian."""
    assert to_bytes(rows(1, 2, 3)) == to_bytes(rows(1)) + to_bytes(rows(2)) + to_bytes(rows(3))
    assert to_bytes(rows(7))[0][:8] == (7).to_bytes(8, "little")


def test_row_as_bytes_follows_its_header() -> None:
    """Whatever bytes that has, and for no row as well."""
    for header in (b"", b"\x00", b"\x01name\x00"):
        assert to_bytes(rows(1, 2), header) == [header + row for row in to_bytes(rows(1, 2))]
        assert to_bytes(rows(), header) == []


@pytest.mark.parametrize("change", [slice(0, -1), slice(4, None), slice(0, 0)])
def test_bytes_of_wrong_size_are_refused(change: slice) -> None:
    """A row that was cut is no row."""
    with pytest.raises(ValueError, match="a state row of"):
        from_bytes(to_bytes(rows(1))[0][change], LAYOUT)


def test_gather_of_unknown_key_gives_a_fresh_row_with_the_tail() -> None:
    """A key without a row starts from zeros and the calibrated tail, and is not stored by that."""
    empty = arena()
    fresh = empty.gather([A], TAIL)
    assert not fresh.integers.any()
    assert fresh.floats[0, LAYOUT.tail : LAYOUT.tail + TAIL_FLOATS].tolist() == list(TAIL)
    assert np.count_nonzero(fresh.floats) == 2
    assert len(empty) == 0


def test_gather_returns_copies_that_change_nothing() -> None:
    """Working on gathered rows leaves the arena as it was until they are put back."""
    held = arena(a=1)
    copies = held.gather([A, A, B], TAIL)
    copies.integers[:] = 9
    copies.floats[:] = 9.0
    assert number_of(held, A) == 1
    held.put([A], Rows(copies.integers[:1], copies.floats[:1]))
    assert number_of(held, A) == 9


def test_arena_over_its_limit_evicts_the_key_touched_longest_ago() -> None:
    """Putting a key again makes it the latest; the one not touched longest leaves."""
    held = arena(max_keys=2, a=1, b=2)
    held.put([A], rows(3))
    held.put([C], rows(4))
    assert held.missing([A, B, C]) == [B]
    assert (number_of(held, A), number_of(held, C), held.evicted) == (3, 4, 1)


def test_arena_smaller_than_a_poll_keeps_the_last_of_its_keys() -> None:
    """A poll of more keys than fit is stored, and all but the last keys leave at once."""
    held = Arena(LAYOUT, 1)
    held.put([A, B, C], rows(1, 2, 3))
    assert held.missing([A, B, C]) == [A, B]
    assert number_of(held, C) == 3


def test_row_of_evicted_key_used_again_holds_nothing_of_it() -> None:
    """A key that takes over a row's place starts fresh."""
    held = arena(max_keys=1, a=1)
    held.put([B], rows(2))
    fresh = held.gather([A], TAIL)
    assert not fresh.integers.any()
    assert np.count_nonzero(fresh.floats) == 2


def test_arena_that_grows_keeps_every_row() -> None:
    """Doubling the arrays moves no row to another key."""
    held = Arena(LAYOUT, 1000)
    keys = [(0, str(number).encode()) for number in range(300)]
    for number, key in enumerate(keys):
        held.put([key], rows(number))
    assert held.gather(keys, TAIL).integers[:, EVENTS].tolist() == list(range(300))
    assert held.evicted == 0
    assert held.nbytes < 1000 * (INTEGERS * 8 + LAYOUT.width * 4)


def test_drop_partition_forgets_its_keys_alone() -> None:
    """Rows of a partition that left are gone; their places are used again."""
    held = arena(a=1, b=2)
    held.put([C], rows(3))
    before = held.nbytes
    held.drop_partition(0)
    assert held.missing([A, B, C]) == [A, B]
    assert number_of(held, C) == 3
    held.put([(2, str(number).encode()) for number in range(63)], rows(*range(63)))
    assert held.nbytes == before


@pytest.mark.parametrize(
    ("column", "number"), [(SCALER, 1), (SCALER, -1), (SCALER, 2**62), (EVENTS, -1), (SCORED, -1), (EVENTS, 2**63 - 1)]
)
def test_state_with_a_number_that_no_scorer_writes_is_refused(column: int, number: int) -> None:
    """The scaler is an index and the counts divide: what another program wrote must not get there."""
    row = Rows(np.zeros((1, INTEGERS), np.int64), np.zeros((1, LAYOUT.width), np.float32))
    check_numbers(row, scalers=1)
    row.integers[0, column] = number
    with pytest.raises(ValueError, match="another program"):
        check_numbers(row, scalers=1)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_state_with_a_number_that_is_not_finite_is_refused(number: float) -> None:
    """It would make every later score of the key none, and spread to all its states."""
    row = Rows(np.zeros((1, INTEGERS), np.int64), np.zeros((1, LAYOUT.width), np.float32))
    row.floats[0, LAYOUT.cell] = number
    with pytest.raises(ValueError, match="not finite: another program"):
        check_numbers(row, scalers=1)
