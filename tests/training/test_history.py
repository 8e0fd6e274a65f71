"""A history: sorted, without duplicates, split per key; and refused if there is too little of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.core.event import EventDecoder
from streamlstm.errors import HistoryError
from streamlstm.training.history import HELD_OUT_SHARE, MIN_EVENTS, history_of
from tests.builders import SCHEMA, START_MS, STEP_MS, changed, make_feed, make_history, make_record

FEED = make_feed(150, ("a", "b"))


def test_history_of_a_feed_is_sorted_by_key_then_time() -> None:
    """Interleaved keys stand one after the other, each in the order of time."""
    history = make_history(FEED)
    assert history.keys == [b"a", b"b"]
    assert history.starts.tolist() == [0, 150, 300]
    assert history.key_index.tolist() == [0] * 150 + [1] * 150
    for key in (0, 1):
        own = history.timestamp_ms[history.starts[key] : history.starts[key + 1]]
        assert own.tolist() == [START_MS + step * STEP_MS for step in range(150)]


def test_history_of_values_keeps_them_with_their_events() -> None:
    """Sorting moves values along with times."""
    batch, _ = EventDecoder(SCHEMA).decode(FEED)
    history = make_history(FEED)
    of_a = [values for key, values in zip(batch.keys, batch.values.tolist(), strict=True) if key == b"a"]
    assert history.values[:150].tolist() == of_a


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(20)), st.integers(1, 19))
def test_history_of_shuffled_batches_is_the_same(order: list[int], cut: int) -> None:
    """Late events are put in place, whichever batch they come in."""
    shuffled = [record for block in order for record in FEED[15 * block : 15 * (block + 1)]]
    decode = EventDecoder(SCHEMA).decode
    history = history_of([decode(shuffled[: 15 * cut])[0], decode(shuffled[15 * cut :])[0]])
    expected = make_history(FEED)
    assert np.array_equal(history.values, expected.values)
    assert np.array_equal(history.timestamp_ms, expected.timestamp_ms)
    assert np.array_equal(history.gap_ms, expected.gap_ms)


def test_history_with_exact_duplicates_leaves_them_out_and_counts_them() -> None:
    """Same key, time and bytes is a duplicate; the same time with other values is an event of its own."""
    other = make_record(time=START_MS, flow=77.0)
    again = [FEED[0], FEED[10], FEED[10]]
    history = make_history([*FEED, *again, other])
    assert history.duplicates == 3
    assert len(history) == len(FEED) + 1
    assert 77.0 in history.values[:2, 0]


@pytest.mark.parametrize("late", [[], [5], [5, 20, 21]])
def test_history_knows_which_events_came_late(late: list[int]) -> None:
    """Those that came after a later one of their key; another key, and the same time, have no say."""
    moved = [record for i, record in enumerate(FEED) if i not in late] + [FEED[i] for i in late]
    history = make_history([*moved, changed(FEED[-1], flow=3.0)])
    assert history.key_index[history.is_late].tolist() == sorted(i % 2 for i in late)
    assert set(history.timestamp_ms[history.is_late]) == {START_MS + i // 2 * STEP_MS for i in late}


def test_history_holds_out_the_latest_quarter_of_each_key() -> None:
    """Each key's own end is held out, rounded down, however many events it has."""
    short = [make_record(sensor="c", time=START_MS + step) for step in range(10)]
    history = make_history([*FEED, *short])
    assert (history.starts[1:] - history.held_out).tolist() == [37, 37, int(10 * HELD_OUT_SHARE)]
    held = history.is_held_out
    for key in range(3):
        own = held[history.starts[key] : history.starts[key + 1]]
        assert own.tolist() == sorted(own.tolist())


def test_gap_of_a_keys_first_event_is_negative_and_of_others_the_time_since() -> None:
    """Gaps never reach across keys."""
    late = make_record(sensor="a", time=START_MS + 149 * STEP_MS + 12_345)
    history = make_history([*FEED, late])
    assert history.gap_ms[history.starts[:-1]].tolist() == [-1.0, -1.0]
    assert history.gap_ms[150] == 12_345
    assert set(history.gap_ms[1:150]) == {STEP_MS}


@pytest.mark.parametrize("events", [0, 1, MIN_EVENTS - 1])
def test_history_that_is_too_short_is_refused_with_its_size(events: int) -> None:
    """The error says how many events there were and how many are needed."""
    batch, _ = EventDecoder(SCHEMA).decode(FEED[:events])
    with pytest.raises(HistoryError, match=f"holds {events} usable events; at least {MIN_EVENTS}"):
        history_of([batch])


def test_history_of_just_enough_events_is_taken() -> None:
    """The limit itself is enough."""
    assert len(make_history(FEED[:MIN_EVENTS])) == MIN_EVENTS
