"""All keys: how unusual each is now and was lately. Keys unheard of for longest make room for new ones."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from streamlstm.core.budget import Budget
from streamlstm.core.feedback import Key
from streamlstm.core.log import Record
from streamlstm.core.record import Status
from streamlstm.dashboard.points import STATUSES, Points
from streamlstm.dashboard.strip import NO_VALUE, WARMING, Strip, heat

MAX_KEYS = 4_000  # 40 KiB each at most
NOW_BUCKETS = 3  # how far back "now" reaches
SILENT_BUCKETS = 3
SILENT_GAPS = 20.0
LATE_KEPT = 100  # times of late events, per key
AGREE = 5  # events in a row that lead the present far ahead, so that one wrong clock does not

# How a key stands, the most urgent first.
ALERT, UNUSUAL, RAISED, CALM, WARMS, SILENT = 5, 4, 3, 2, 1, 0
Level = int


class ScoreLine(msgspec.Struct, frozen=True):
    """What the fleet wants of a score record; the evidence in it is passed over."""

    key: str
    time_ms: int
    offset: int
    status: Status
    model: str
    score: float = math.nan
    tail_probability: float = math.nan
    threshold: float = math.nan
    alert: str | None = None


_decode = msgspec.json.Decoder(ScoreLine).decode


def _opens(line: ScoreLine) -> bool:
    return line.alert is not None and line.alert.endswith(f":{line.offset}")


class Promise(NamedTuple):
    """``alarm_rate``: share of the events that may be flagged; ``budget``: the same in words. ``warmup_events``: a
    key's first ones, without a score. ``typical_gap_ms``: between a key's events. ``width_ms``: of a strip's bucket."""

    alarm_rate: float
    budget: Budget
    warmup_events: int
    typical_gap_ms: float
    width_ms: int

    @property
    def tenths(self) -> int:
        """Tenths of decades at which an event is flagged."""
        return heat(self.alarm_rate, in_alert=False)


@dataclass
class Card:
    """What is known of one key. ``warming`` counts the events of its warm-up that were seen."""

    number: int
    key: Key
    last_ms: int = 0
    alert: str | None = None
    warm: bool = False
    warming: int = 0
    events: int = 0
    missing: int = 0
    late: int = 0
    late_ms: deque[int] = field(default_factory=lambda: deque(maxlen=LATE_KEPT))
    strip: Strip = field(default_factory=Strip)
    points: Points = field(default_factory=Points)


class Fleet:
    """The cards of all keys, and counts over all events seen; ``watched_ms`` is event time of all keys together.

    Of one alert's flagged events ``flagged_apart`` counts the first only: the others come with it, not by chance.

    ``now_ms`` is the largest event time: the page's present is that of the stream, not of a clock. A key that is alone
    with times far ahead of all others does not lead it.
    """

    def __init__(self, promise: Promise, max_keys: int = MAX_KEYS) -> None:
        self.promise = promise
        self.now_ms = 0
        self.dropped = 0
        self.scored = 0
        self.flagged = 0
        self.flagged_apart = 0
        self.opened = 0
        self.watched_ms = 0
        self.model: str | None = None
        self._max_keys = max_keys
        self._numbers = 0
        self._ahead = 0
        self._cards: OrderedDict[Key, Card] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cards)

    @property
    def until(self) -> int:
        """The bucket in which the present lies."""
        return self.now_ms // self.promise.width_ms

    def cards(self) -> Iterator[Card]:
        """Yield all cards, the one heard of last at the end."""
        yield from self._cards.values()

    def card(self, key: Key) -> Card | None:
        """Return a key's card, if there is one."""
        return self._cards.get(key)

    def find(self, name: str) -> Card | None:
        """Return the card of a key by its name only."""
        return next((card for (_, key), card in self._cards.items() if key == name), None)

    def take_score(self, record: Record) -> int:
        """Take the next score record in, and return its event's offset; raises ``msgspec`` errors if it is none."""
        line = _decode(record.value)
        card = self._heard((record.partition, line.key))
        self._watch(card, line)
        card.strip.put(line.time_ms // self.promise.width_ms, self._count(card, line))
        card.alert = line.alert
        card.last_ms = max(card.last_ms, line.time_ms)
        self._move_to(line.time_ms)
        self.model = line.model
        card.points.add(
            line.offset,
            line.time_ms,
            line.score,
            line.tail_probability,
            line.threshold,
            STATUSES[line.status],
            line.alert is not None,
        )
        return line.offset

    def _watch(self, card: Card, line: ScoreLine) -> None:
        """Count the time since a key's last event, unless it started anew, and the alert that opens with this one."""
        anew = card.warm and line.status == "warming_up"
        if card.events and not anew:
            self.watched_ms += max(0, line.time_ms - card.last_ms)
        self.opened += _opens(line)

    def _move_to(self, time_ms: int) -> None:
        """Let the present be no earlier than an event, unless that is far ahead and those that follow do not agree."""
        self._ahead = self._ahead + 1 if time_ms - self.now_ms > self._silence_ms else 0
        if self._ahead == 0 or self._ahead >= min(AGREE, len(self)):
            self.now_ms, self._ahead = max(self.now_ms, time_ms), 0

    def _count(self, card: Card, line: ScoreLine) -> int:
        """Count an event, and return what it puts into the strip."""
        card.events += 1
        if line.status == "warming_up":
            card.warming = 1 if card.warm else card.warming + 1  # it may start anew after a silence
            card.warm = False
            return WARMING
        if line.status == "no_value":
            card.missing += 1
            return NO_VALUE
        card.warm = True
        self.scored += 1
        flagged = line.tail_probability <= self.promise.alarm_rate
        self.flagged += flagged
        self.flagged_apart += flagged and (line.alert is None or _opens(line))
        return heat(line.tail_probability, in_alert=line.alert is not None)

    def take_late(self, key: Key, time_ms: int) -> None:
        """Note an event that came too late to be scored; one of a key that is not known is not kept."""
        card = self._cards.get(key)
        if card is not None:
            card.late += 1
            card.late_ms.append(time_ms)

    def level(self, card: Card) -> Level:
        """Say how a key stands now."""
        if card.alert is not None:
            return ALERT
        if self.silent(card):
            return SILENT
        if not card.warm:
            return WARMS
        worst = card.strip.worst(self.until, NOW_BUCKETS)
        if worst >= self.promise.tenths:
            return UNUSUAL
        return RAISED if worst >= self.promise.tenths - 10 else CALM

    def silent(self, card: Card) -> bool:
        """Say whether a key has sent nothing for much longer than it usually does."""
        return self.now_ms - card.last_ms > self._silence_ms

    @property
    def _silence_ms(self) -> float:
        return max(SILENT_BUCKETS * self.promise.width_ms, SILENT_GAPS * self.promise.typical_gap_ms)

    def row(self, card: Card, level: Level) -> dict[str, Any]:
        """Return what the fleet view shows of a key; it changes no more often than it must."""
        worst = card.strip.worst(self.until, NOW_BUCKETS)
        return {
            "key": card.key[1],
            "partition": card.key[0],
            "level": level,
            "tenths": worst % 100 if worst >= 0 else None,
            "silent_since_ms": card.last_ms if level == SILENT else None,
            "warm_in": max(0, self.promise.warmup_events - card.warming) if level == WARMS else None,
            "alert": card.alert,
            "late": card.late,
            "strip": card.strip.window(self.until),
        }

    def _heard(self, key: Key) -> Card:
        card = self._cards.get(key)
        if card is not None:
            self._cards.move_to_end(key)
            return card
        self._numbers += 1
        card = self._cards[key] = Card(self._numbers, key)
        if len(self._cards) > self._max_keys:
            self._cards.popitem(last=False)
            self.dropped += 1
        return card
