"""What happens to a feed on its way: losses, swaps, repeats, delays and bursts. No event's bytes change.

Each effect is a generator from timed events, in the order in which they are due, to the same. All times
are event time, so that a seed gives the same feed at every speed. An effect holds the events of its
window of time, and never more than :data:`HELD_EVENTS`: beyond, the longest held go first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from streamlstm.services.feed_source import Timed
from streamlstm.services.settings import ReplaySettings

HELD_EVENTS = 100_000  # some tens of MB of small events; chosen


@dataclass
class Tally:
    """How many events were lost, sent twice, and delivered after their successor."""

    lost: int = 0
    duplicated: int = 0
    reordered: int = 0


def delivered(records: Iterator[Timed], settings: ReplaySettings, tally: Tally) -> Iterator[Timed]:
    """Apply the effects that the settings ask for, and count them in ``tally``.

    Each effect draws from its own generator, so that one more does not change what the others do.
    """
    if settings.loss:
        records = lossy(records, settings.loss, _rng("loss", settings.seed), tally)
    if settings.reorder:  # before duplicates: to swap an event with its twin would change nothing
        records = reordered(records, settings.reorder, _rng("reorder", settings.seed), tally)
    if settings.duplicates:
        records = duplicated(records, settings.duplicates, _rng("duplicates", settings.seed), tally)
    if settings.jitter_s:
        records = jittered(records, settings.jitter_s * 1000, _rng("jitter", settings.seed))
    if settings.burst_every_s:
        records = in_bursts(records, settings.burst_every_s * 1000)
    return records


def _rng(effect: str, seed: int) -> Random:
    return Random(f"{effect} {seed}")


def lossy(records: Iterator[Timed], share: float, rng: Random, tally: Tally) -> Iterator[Timed]:
    """Lose a share of the events."""
    for record in records:
        if rng.random() < share:
            tally.lost += 1
        else:
            yield record


def duplicated(records: Iterator[Timed], share: float, rng: Random, tally: Tally) -> Iterator[Timed]:
    """Send a share of the events twice; a jitter after it delays each of the two for itself."""
    for record in records:
        yield record
        if rng.random() < share:
            tally.duplicated += 1
            yield record


def reordered(records: Iterator[Timed], share: float, rng: Random, tally: Tally) -> Iterator[Timed]:
    """Deliver a share of the events (at most half) right after the next one of their key.

    An event whose key does not come again is delivered at the end, and not counted.
    """
    chance = share / (1 - share)  # an event that another one was swapped with is not drawn for itself
    held: dict[bytes | None, Timed] = {}
    due_ms = 0.0
    for record in records:
        due_ms = record.due_ms
        earlier = held.pop(record.key, None)
        if earlier is not None:
            tally.reordered += 1
            yield record
            yield earlier._replace(due_ms=due_ms)
        elif rng.random() < chance:
            held[record.key] = record
            if len(held) > HELD_EVENTS:
                yield held.pop(next(iter(held)))._replace(due_ms=due_ms)
        else:
            yield record
    for record in held.values():
        yield record._replace(due_ms=due_ms)


def jittered(records: Iterator[Timed], jitter_ms: float, rng: Random) -> Iterator[Timed]:
    """Delay each event by up to ``jitter_ms``, evenly drawn; those that are overtaken change places."""
    held: list[tuple[float, int, Timed]] = []
    for number, record in enumerate(records):
        while held and (held[0][0] <= record.due_ms or len(held) >= HELD_EVENTS):
            yield heapq.heappop(held)[2]
        due_ms = record.due_ms + rng.random() * jitter_ms
        heapq.heappush(held, (due_ms, number, record._replace(due_ms=due_ms)))
    while held:
        yield heapq.heappop(held)[2]


def in_bursts(records: Iterator[Timed], every_ms: float) -> Iterator[Timed]:
    """Hold events back and let all of ``every_ms`` go together, in their order."""
    for record in records:
        yield record._replace(due_ms=(record.due_ms // every_ms + 1) * every_ms)
