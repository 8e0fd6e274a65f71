"""The board: everything that the page shows, put together from the records as they come; and what has changed.

Used under a lock: one thread takes records in, others look.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from streamlstm.core.budget import FEW, Promised, judged
from streamlstm.core.bundle import Bundle
from streamlstm.core.event import EventDecoder, Parse
from streamlstm.core.feedback import Key, Mutes
from streamlstm.core.feedback import decode as decode_feedback
from streamlstm.core.log import Record
from streamlstm.core.record import decode_alert
from streamlstm.dashboard.episodes import Episodes
from streamlstm.dashboard.fleet import ALERT, SILENT, UNUSUAL, WARMS, Card, Fleet, Promise
from streamlstm.dashboard.recent import Recent
from streamlstm.dashboard.series import SHOWN_FEATURES, SeriesMaker, Stretch
from streamlstm.dashboard.strip import BUCKETS, changed_tail, width_for

TOP_KEYS = 50  # rows that are pushed; the others are found by name
TOP_EPISODES = 50
RATE_OVER_MS = 10_000
REORDER_MS = 2_000  # rows that jump about cannot be read
RECENT_BYTES = 64 * 1024 * 1024  # of records kept as they were, of scores and of events
FEEDBACK_IDS = 10_000  # remembered, to know a repetition

State = dict[str, Any]


def promise_of(bundle: Bundle, promised: Promised | None = None) -> Promise:
    """Return what a bundle promises; ``promised`` replaces the bundle's own."""
    gap_ms = bundle.feature.typical_gap_ms
    return Promise(*(promised or bundle.promised()), bundle.calibration.warmup_events, gap_ms, width_for(gap_ms))


class Board:
    """All that is known. ``topic`` is the input's name; other topics' records come by their kind."""

    def __init__(
        self, topic: str, bundle: Bundle, promised: Promised | None = None, parse: Parse | None = None
    ) -> None:
        self.topic, self.bundle = topic, bundle
        self.fleet = Fleet(promise_of(bundle, promised))
        self.episodes = Episodes()
        self.mutes = Mutes()
        self.letters: Counter[str] = Counter()
        self.explained = False
        self.unreadable = 0
        self._decoder = EventDecoder(bundle.schema, parse)
        self.series = SeriesMaker(bundle.schema, bundle.feature.typical_gap_ms, self._decoder)
        self._scores, self._events = Recent(RECENT_BYTES), Recent(RECENT_BYTES)
        self._arrived: deque[tuple[int, int]] = deque()  # when (ms), how many
        self._heard_ms = 0
        self._said: dict[str, None] = {}
        self._order: list[Key] = []
        self._ordered_ms = 0
        self._in_alert: set[Key] = set()

    # What comes in

    def take_scores(self, records: Sequence[Record]) -> None:
        """Take score records in."""
        for record in records:
            try:
                offset = self.fleet.take_score(record)
            except msgspec.MsgspecError:
                self.unreadable += 1
            else:
                self._scores.add((record.partition, offset), record)
        if records:
            self.explained = b'"features"' in records[-1].value
            self._heard_ms = records[-1].timestamp_ms
            self._arrived.append((self._heard_ms, len(records)))

    def take_events(self, records: Iterable[Record]) -> None:
        """Keep the input's records, for the values in them."""
        for record in records:
            self._events.add((record.partition, record.offset), record)

    def take_alerts(self, records: Iterable[Record]) -> None:
        """Take alert records in."""
        for record in records:
            try:
                alert = decode_alert(record.value)
            except msgspec.MsgspecError:
                self.unreadable += 1
                continue
            self.episodes.take(alert)

    def take_letters(self, records: Sequence[Record]) -> None:
        """Count dead letters by their reason; a late event is noted at its key."""
        for record in records:
            headers = dict(record.headers)
            reason = headers.get("reason", b"").decode(errors="replace")
            self.letters[reason] += 1
            if reason == "late":
                original = record._replace(timestamp_ms=int(headers.get("timestamp_ms", b"0")), headers=())
                batch, _ = self._decoder.decode([original])
                for key, time_ms in zip(batch.keys, batch.timestamp_ms.tolist(), strict=True):
                    self.fleet.take_late((record.partition, key.decode()), time_ms)

    def take_feedback(self, records: Iterable[Record]) -> None:
        """Take in what people said; an id that was seen before is the same, sent again."""
        for record in records:
            try:
                said = decode_feedback(record.value)
            except msgspec.MsgspecError:
                self.unreadable += 1
                continue
            if said.id in self._said:
                continue
            self._said[said.id] = None
            if len(self._said) > FEEDBACK_IDS:
                del self._said[next(iter(self._said))]
            self.mutes.take(said)
            self.episodes.take_feedback(said)

    def known(self, feedback_id: str) -> bool:
        """Say whether feedback with this id has been taken in."""
        return feedback_id in self._said

    # What is shown

    def state(self, wall_ms: int) -> State:
        """Return the fleet view: figures, the worst keys, the newest alerts."""
        self.mutes.forget_ended(wall_ms)
        levels = {card.key: (card, self._level(card)) for card in self.fleet.cards()}
        in_alert = {key for key, (_, level) in levels.items() if level == ALERT}
        if wall_ms - self._ordered_ms >= REORDER_MS or in_alert != self._in_alert or not self._order:
            self._order, self._ordered_ms, self._in_alert = self._worst(levels), wall_ms, in_alert
        shown = [levels[key] for key in self._order if key in levels]
        counts = Counter(level for _, level in levels.values())
        return {
            "head": self._head(wall_ms, counts),
            "order": [card.number for card, _ in shown],
            "rows": {card.number: self._row(card, level, wall_ms) for card, level in shown},
            "episodes": {episode.last.id: episode.shown() for episode in self.episodes.newest(TOP_EPISODES)},
        }

    def rows(self, find: str, most: int, wall_ms: int) -> list[dict[str, Any]]:
        """Return the rows of the keys with this text in their name, by name."""
        wanted = find.casefold()
        cards = sorted(
            (c for c in self.fleet.cards() if wanted in c.key[1].casefold()), key=lambda card: card.key[::-1]
        )
        return [self._row(card, self._level(card), wall_ms) for card in cards[:most]]

    def key(self, key: Key, wall_ms: int) -> dict[str, Any] | None:
        """Return what is known of one key beside its series; None if nothing is."""
        card = self.fleet.card(key)
        if card is None:
            return None
        return {
            **self._row(card, self._level(card), wall_ms),
            "last_ms": card.last_ms,
            "events": card.events,
            "missing": card.missing,
            "late_ms": list(card.late_ms),
            "warming": not card.warm,
            "episodes": [episode.evidence() for episode in self.episodes.of(key)[:20]],
        }

    def stretch(self, key: Key, since_ms: int, until_ms: int) -> tuple[Stretch, bool] | None:
        """Return a key's events in a span of event time, and whether memory reaches back to its start."""
        card = self.fleet.card(key)
        if card is None:
            return None
        points = card.points.all()
        times = points["time_ms"]
        reaches_back = bool(len(points)) and int(times[0]) <= since_ms
        points = points[(times >= since_ms) & (times <= until_ms)]
        places = [(key[0], offset) for offset in points["offset"].tolist()]
        return Stretch(
            points, [self._events.get(p) for p in places], [self._scores.get(p) for p in places]
        ), reaches_back

    def features_of(self, key: Key, wanted: Sequence[str]) -> list[str]:
        """Return the features to draw: those asked for, or those that the last alert blames, and the first ones."""
        names = self.bundle.schema.numeric
        if chosen := [name for name in wanted if name in names]:
            return chosen[:SHOWN_FEATURES]
        blamed = [name for episode in self.episodes.of(key)[:1] for name, _ in episode.shown()["shares"]]
        return list(dict.fromkeys(name for name in (*blamed, *names) if name in names))[:SHOWN_FEATURES]

    def _head(self, wall_ms: int, counts: Counter[int]) -> dict[str, Any]:
        fleet = self.fleet
        return {
            "topic": self.topic,
            "now_ms": fleet.now_ms,
            "until": fleet.until,
            "width_ms": fleet.promise.width_ms,
            "buckets": BUCKETS,
            "gap_ms": fleet.promise.typical_gap_ms,
            "keys": len(fleet),
            "keys_dropped": fleet.dropped,
            "in_alert": counts[ALERT],
            "warming": counts[WARMS],
            "silent": counts[SILENT],
            "open": max(self.episodes.open_count, counts[ALERT]),  # it may hold fewer than there are
            "rate": self._rate(wall_ms),
            "quiet_ms": self._quiet_ms(wall_ms),
            "scored": fleet.scored,
            "flagged": fleet.flagged,
            "promised": fleet.promise.alarm_rate,
            "flagged_judged": judged(fleet.flagged_apart, fleet.scored * fleet.promise.alarm_rate),
            "alarms": self._alarms(),
            "model": fleet.model,
            "page_model": self.bundle.name,
            "explained": self.explained,
            "letters": dict(self.letters),
            "unreadable": self.unreadable,
            "features": list(self.bundle.schema.numeric),
        }

    def _alarms(self) -> dict[str, Any]:
        """Return alerts per key and unit of time: promised, realised (None while few were due), how many opened, how
        many were due by now, and what that tells."""
        fleet, budget = self.fleet, self.fleet.promise.budget
        realised, due = budget.realised(fleet.opened, fleet.watched_ms), budget.due(fleet.watched_ms)
        return {
            "unit": budget.unit,
            "promised": _three_digits(budget.alarms),
            "realised": None if realised is None or due < FEW else _three_digits(realised),
            "opened": fleet.opened,
            "due": _three_digits(due),
            "judged": judged(fleet.opened, due),
        }

    def _rate(self, wall_ms: int) -> float:
        """Return the events scored per second lately, by the log's time."""
        while self._arrived and self._arrived[0][0] < wall_ms - RATE_OVER_MS:
            self._arrived.popleft()
        return _three_digits(sum(count for _, count in self._arrived) * 1000 / RATE_OVER_MS)

    def _quiet_ms(self, wall_ms: int) -> int | None:
        """Return for how long no score has come, by the log's time, in whole seconds; None while some do."""
        quiet_ms = wall_ms - self._heard_ms
        return quiet_ms // 1_000 * 1_000 if self._heard_ms and quiet_ms > RATE_OVER_MS else None

    def _level(self, card: Card) -> int:
        """Say how a key stands; the score of an alert's last event still names it."""
        if card.alert and (episode := self.episodes.get(card.alert)) and not episode.open:
            card.alert = None
        return self.fleet.level(card)

    def _row(self, card: Card, level: int, wall_ms: int) -> dict[str, Any]:
        return {**self.fleet.row(card, level), "muted_until_ms": self.mutes.until_ms(card.key, wall_ms)}

    def _worst(self, levels: dict[Key, tuple[Card, int]]) -> list[Key]:
        """Return the keys to show: the most urgent first, the calm ones by name, so that they stay where they are."""

        def urgency(key: Key) -> tuple[Any, ...]:
            card, level = levels[key]
            worst = card.strip.worst(self.fleet.until, BUCKETS // 12) if level >= UNUSUAL else 0
            return -level, -worst, key[1], key[0]

        return sorted(levels, key=urgency)[:TOP_KEYS]


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def change(old: State, new: State) -> State:
    """Return what turns one state into the next: fields that changed, rows that changed, and which went.

    A strip comes as its changed end; the reader first moves every strip by the difference of ``until``.
    """
    shift = new["head"]["until"] - old["head"]["until"]
    rows = {number: _row_change(old["rows"].get(number), row, shift) for number, row in new["rows"].items()}
    return {
        "head": _fields(old["head"], new["head"]),
        "order": new["order"] if new["order"] != old["order"] else None,
        "rows": {number: row for number, row in rows.items() if row},
        "episodes": {name: one for name, one in new["episodes"].items() if one != old["episodes"].get(name)},
        "ended": [name for name in old["episodes"] if name not in new["episodes"]],
    }


def _row_change(old: dict[str, Any] | None, new: dict[str, Any], shift: int) -> dict[str, Any]:
    if old is None:
        return new
    fields = _fields(old, new)
    fields.pop("strip", None)
    if tail := changed_tail(old["strip"], new["strip"], shift):
        fields["tail"] = tail
    return fields


def _fields(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in new.items() if name not in old or old[name] != value}
