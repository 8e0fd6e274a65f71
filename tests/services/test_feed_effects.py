"""What happens to a feed on its way, and that it is what was asked for and nothing else."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlstm.services import feed_effects
from streamlstm.services.feed_effects import Tally, delivered, duplicated, in_bursts, jittered, lossy, reordered
from streamlstm.services.feed_source import Timed
from streamlstm.services.settings import ReplaySettings

KEYS = (b"a", b"b", b"c")


def make_feed(events: int, keys: tuple[bytes, ...] = KEYS, step_ms: float = 100.0) -> list[Timed]:
    """Return a feed whose values number its events; keys take turns."""
    return [Timed(i * step_ms, b"%d" % i, keys[i % len(keys)], 1_600_000_000_000) for i in range(events)]


def make_settings(**effects: float) -> ReplaySettings:
    """Return settings that ask for effects."""
    return ReplaySettings(stream=Path("stream.toml"), log="sqlite:///log.db", **effects)  # type: ignore[arg-type]


def numbers_of(records: Iterator[Timed]) -> list[int]:
    """Return the events' numbers, in order."""
    return [int(record.value) for record in records]


def within(count: int, events: int, share: float) -> bool:
    """Whether a count of independent draws lies within five standard deviations of what is expected."""
    return abs(count - events * share) <= 5 * math.sqrt(events * share * (1 - share))


class Tap:
    """A feed that counts how many events were taken from it."""

    def __init__(self, records: list[Timed]) -> None:
        self._records = records
        self.taken = 0

    def __iter__(self) -> Iterator[Timed]:
        """Yield the feed."""
        for record in self._records:
            self.taken += 1
            yield record


def most_held(tap: Tap, records: Iterator[Timed]) -> int:
    """Return how many events an effect held at most."""
    return max(tap.taken - sent for sent, _ in enumerate(records))


def test_delivered_without_effects_is_the_feed() -> None:
    """Nothing asked for, nothing done: not even a stage."""
    feed = iter(make_feed(3))
    assert delivered(feed, make_settings(), Tally()) is feed


def test_lossy_loses_the_share_and_counts_it() -> None:
    """What is left is the feed in its order, and the count is what is gone."""
    tally = Tally()
    left = numbers_of(lossy(iter(make_feed(5000)), 0.2, Random(1), tally))
    assert left == sorted(set(left))
    assert tally == Tally(lost=5000 - len(left))
    assert within(tally.lost, 5000, 0.2)


def test_duplicated_sends_the_share_twice_in_a_row_and_counts_it() -> None:
    """A duplicate follows its event, byte for byte the same."""
    tally = Tally()
    sent = list(duplicated(iter(make_feed(5000)), 0.2, Random(1), tally))
    twice = [record for record, following in itertools.pairwise(sent) if record == following]
    assert sorted(set(numbers_of(iter(sent)))) == list(range(5000))
    assert tally == Tally(duplicated=len(twice)) == Tally(duplicated=len(sent) - 5000)
    assert within(tally.duplicated, 5000, 0.2)


def test_reordered_half_swaps_every_pair_of_a_key() -> None:
    """An event goes right after the next one of its own key, whatever lies between."""
    tally = Tally()
    sent = list(reordered(iter(make_feed(8, (b"a", b"b"))), 0.5, Random(1), tally))
    assert numbers_of(iter(sent)) == [2, 0, 3, 1, 6, 4, 7, 5]
    assert [record.due_ms for record in sent] == [200, 200, 300, 300, 600, 600, 700, 700]
    assert tally == Tally(reordered=4)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_reordered_swaps_the_share_and_counts_it(share: float) -> None:
    """As many events come after their successor as were asked for and counted."""
    tally = Tally()
    sent = list(reordered(iter(make_feed(6000)), share, Random(1), tally))
    overtaken = 0
    for key in KEYS:
        mine = numbers_of(record for record in sent if record.key == key)
        overtaken += sum(before > after for before, after in itertools.pairwise(mine))
    assert tally == Tally(reordered=overtaken)
    assert within(tally.reordered, 6000, share)


def test_reordered_event_without_a_successor_comes_at_the_end_uncounted() -> None:
    """Nothing is lost: what waits for an event that never comes is sent last."""
    tally = Tally()
    feed = [Timed(0.0, b"0", b"once"), *(Timed(100.0 * i, b"%d" % i, None) for i in range(1, 5))]
    sent = list(reordered(iter(feed), 0.5, Random(1), tally))
    assert numbers_of(iter(sent)) == [2, 1, 4, 3, 0]
    assert sent[-1].due_ms == 400.0
    assert tally == Tally(reordered=2)


def test_reordered_many_keys_are_not_held_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that do not come again let the longest held go."""
    monkeypatch.setattr(feed_effects, "HELD_EVENTS", 10)
    feed = make_feed(500, tuple(b"k%d" % i for i in range(500)))
    tap = Tap(feed)
    sent = reordered(iter(tap), 0.5, Random(1), Tally())
    assert most_held(tap, sent) <= 11
    again = numbers_of(reordered(iter(feed), 0.5, Random(1), Tally()))
    assert again == list(range(500)), "the longest held goes first"


def test_jittered_delays_each_event_by_up_to_the_jitter() -> None:
    """Delays fill the range from nothing to the jitter, and what is due first comes first."""
    feed = make_feed(2000)
    sent = list(jittered(iter(feed), 1000.0, Random(1)))
    delays = [record.due_ms - feed[int(record.value)].due_ms for record in sent]
    assert 0.0 <= min(delays) < 10.0
    assert 990.0 < max(delays) <= 1000.0
    assert [record.due_ms for record in sent] == sorted(record.due_ms for record in sent)
    assert sorted(numbers_of(iter(sent))) == list(range(2000))


@pytest.mark.parametrize(("jitter_ms", "changes"), [(1000.0, True), (100.0, False)])
def test_jittered_changes_the_order_within_a_key_if_longer_than_its_gap(jitter_ms: float, changes: bool) -> None:
    """Events 300 ms apart overtake each other with a jitter of a second, and never with one of 100 ms."""
    mine = numbers_of(record for record in jittered(iter(make_feed(300)), jitter_ms, Random(1)) if record.key == b"a")
    assert (mine != sorted(mine)) is changes


def test_jittered_holds_no_more_than_its_window() -> None:
    """A thousand events of memory serve a feed of any length."""
    tap = Tap(make_feed(3000))
    assert most_held(tap, jittered(iter(tap), 1000.0, Random(1))) <= 1000 / 100 + 1


def test_jittered_events_that_are_all_due_at_once_are_not_held_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of time may hold a whole file, if its time stands still."""
    monkeypatch.setattr(feed_effects, "HELD_EVENTS", 20)
    tap = Tap(make_feed(500, step_ms=0.0))
    assert most_held(tap, jittered(iter(tap), 1000.0, Random(1))) <= 21


def test_in_bursts_events_wait_for_the_end_of_their_interval() -> None:
    """All of an interval become due together, in order; the next interval starts the next burst."""
    sent = list(in_bursts(iter(make_feed(25)), 1000.0))
    assert [record.due_ms for record in sent] == [1000.0] * 10 + [2000.0] * 10 + [3000.0] * 5
    assert numbers_of(iter(sent)) == list(range(25))


def test_delivered_with_the_same_seed_is_the_same() -> None:
    """A run that found something can be run again; another seed is another run."""
    settings = {"loss": 0.1, "duplicates": 0.1, "reorder": 0.1, "jitter_s": 1.0}
    runs = [list(delivered(iter(make_feed(300)), make_settings(**settings, seed=seed), Tally())) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("other", [{"jitter_s": 5.0}, {"duplicates": 0.3}, {"reorder": 0.3}, {"burst_every_s": 3.0}])
def test_delivered_one_effect_more_leaves_the_losses_as_they_were(other: dict[str, float]) -> None:
    """Each effect has its own luck, so that effects can be told apart."""
    alone, beside = (
        set(numbers_of(delivered(iter(make_feed(500)), make_settings(loss=0.1, **effects), Tally())))
        for effects in ({}, other)
    )
    assert alone == beside


def test_delivered_reorders_before_it_duplicates() -> None:
    """An event is swapped with its successor, never with its own twin."""
    tally = Tally()
    sent = numbers_of(delivered(iter(make_feed(600, (b"a",))), make_settings(reorder=0.5, duplicates=0.5), tally))
    firsts = list(dict.fromkeys(sent))
    assert firsts == [number for pair in range(0, 600, 2) for number in (pair + 1, pair)]
    assert tally.reordered == 300
    assert tally.duplicated == len(sent) - 600 > 0


@given(
    keys=st.lists(st.sampled_from([*KEYS, None]), max_size=60),
    steps_ms=st.lists(st.integers(0, 3000), min_size=60, max_size=60),
    loss=st.sampled_from([0.0, 0.3]),
    duplicates=st.sampled_from([0.0, 0.3]),
    reorder=st.sampled_from([0.0, 0.3, 0.5]),
    jitter_s=st.sampled_from([0.0, 2.0]),
    burst_every_s=st.sampled_from([0.0, 2.0]),
    seed=st.integers(0, 100),
)
def test_delivered_feed_is_the_feed_but_for_what_was_counted(
    keys: list[bytes | None], steps_ms: list[int], seed: int, **effects: float
) -> None:
    """Whatever the effects: no byte changes, the counts explain each event, and none comes before its time."""
    feed, due_ms = [], 0.0
    for number, (key, step_ms) in enumerate(zip(keys, steps_ms, strict=False)):
        due_ms += step_ms
        feed.append(Timed(due_ms, b"%d" % number, key))
    tally = Tally()
    sent = list(delivered(iter(feed), make_settings(**effects, seed=seed), tally))
    counts = Counter(numbers_of(iter(sent)))
    assert len(sent) == len(feed) - tally.lost + tally.duplicated
    assert set(counts) <= set(range(len(feed)))
    assert len(counts) == len(feed) - tally.lost
    assert sum(count - 1 for count in counts.values()) == tally.duplicated
    assert [record.due_ms for record in sent] == sorted(record.due_ms for record in sent)
    for record in sent:
        before = feed[int(record.value)]
        assert record.due_ms >= before.due_ms
        assert record._replace(due_ms=0.0) == before._replace(due_ms=0.0)
