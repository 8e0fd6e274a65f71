"""Heat strips: the worst of each bucket, old ones forgotten, and changes small and right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamlstm.dashboard.strip import BUCKETS, NONE, WARMING, Strip, changed_tail, heat, width_for


def test_bucket_keeps_its_worst_value_and_holes_stay_empty() -> None:
    """Later calm does not hide an alarm; where nothing came, nothing is."""
    strip = Strip()
    for bucket, value in ((10, WARMING), (10, 7), (10, 3), (13, 130)):
        strip.put(bucket, value)
    assert strip.window(13)[-4:] == [7, NONE, NONE, 130]
    assert strip.worst(13, 3) == 130
    assert strip.worst(12, 2) == NONE
    assert strip.window(15)[-4:] == [NONE, 130, NONE, NONE]


def test_what_is_older_than_the_strip_is_forgotten() -> None:
    """A ring: neither an old value nor one that comes too late shows up in a new place."""
    strip = Strip()
    strip.put(5, 50)
    strip.put(5 + BUCKETS, 1)
    strip.put(5, 60)
    assert [value for value in strip.window(5 + BUCKETS) if value != NONE] == [1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 99)), min_size=1, max_size=60), st.integers(1, 59))
def test_changes_rebuild_the_window(steps: list[tuple[int, int]], cut: int) -> None:
    """What a reader has, moved, with the changed end put in, is what there is."""
    strip, bucket = Strip(), 1_000
    before: list[int] = [NONE] * BUCKETS
    seen_at = bucket
    for place, (ahead, value) in enumerate(steps):
        bucket += ahead * (BUCKETS // 3 if place == cut else 1)
        strip.put(bucket, value)
        if place % 3 == 0:
            now, shift = strip.window(bucket), bucket - seen_at
            tail = changed_tail(before, now, shift)
            moved = ([*before, *[NONE] * shift])[-BUCKETS:]
            assert moved[: BUCKETS - len(tail)] + tail == now
            before, seen_at = now, bucket


def test_width_follows_the_streams_own_pace() -> None:
    """A strip is an hour of a heart beat, and half a month of half-hourly counts."""
    assert width_for(1000 / 16) == 10_000
    assert width_for(1_800_000) == 3_600_000
    assert width_for(1e12) == 86_400_000
    assert heat(1e-30, in_alert=True) == 199
