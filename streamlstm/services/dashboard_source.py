"""What the page asks for, from the board in memory and, further back, from the log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from streamlstm.adapters.web.app import Said
from streamlstm.core import feedback
from streamlstm.core.feedback import FeedbackRecord, Key
from streamlstm.core.log import EventLog, NewRecord
from streamlstm.core.topic import feedback_topic
from streamlstm.dashboard.board import Board
from streamlstm.dashboard.series import bin_width_ms
from streamlstm.services.dashboard_desk import Desk
from streamlstm.services.history import history_of

SHOWN_BYTES = 65_536  # of a record
USUAL_BUCKETS = 6  # of the fleet's strip, shown of a key at first
LONGEST_SPAN_MS = 400 * 86_400_000


@dataclass
class BoardSource:
    """A :class:`~streamlstm.adapters.web.app.Source`; ``lock`` is the board's."""

    board: Board
    lock: threading.Lock
    desk: Desk
    wall_ms: Callable[[], int]

    def watch(self, key: str, partition: int | None, span_ms: int | None, features: Sequence[str]) -> KeyWatch | None:
        """Begin to watch a key; by its name alone, the first one of that name."""
        with self.lock:
            fleet = self.board.fleet
            card = fleet.find(key) if partition is None else fleet.card((partition, key))
            if card is None:
                return None
            chosen = self.board.features_of(card.key, features)
            usual_ms = USUAL_BUCKETS * fleet.promise.width_ms
        return KeyWatch(self, card.key, min(max(span_ms or usual_ms, 1_000), LONGEST_SPAN_MS), chosen)

    def rows(self, find: str, most: int) -> list[dict[str, Any]]:
        """Return the rows of keys with this text in their name."""
        with self.lock:
            return self.board.rows(find, most, self.wall_ms())

    def series(
        self, key: str, partition: int, span: tuple[int, int], width_ms: int | None, features: Sequence[str]
    ) -> dict[str, Any]:
        """Return a key's series in a span of event time: from memory, or from the log where that is too short."""
        since_ms, until_ms = max(0, span[0]), min(span[1], span[0] + LONGEST_SPAN_MS)
        width = max(1, width_ms or bin_width_ms(until_ms - since_ms))
        with self.lock:
            found = self.board.stretch((partition, key), since_ms, until_ms)
            chosen = self.board.features_of((partition, key), features)
        if found is not None and found[1]:
            return {**self.board.series.make(found[0], width, chosen), "whole_until_ms": until_ms}
        look = partial(history_of, topic=self.board.topic, key=(partition, key), since_ms=since_ms, until_ms=until_ms)
        history = self.desk.ask(look)
        return {**self.board.series.make(history.stretch, width, chosen), "whole_until_ms": history.whole_until_ms}

    def record(self, partition: int, offset: int) -> dict[str, Any]:
        """Return an input record as it is, as text."""
        found = self.desk.ask(lambda log: log.read(self.board.topic, partition, offset, 1))
        if not found or found[0].offset != offset:
            return {"value": None}
        value = found[0].value
        return {"value": value[:SHOWN_BYTES].decode(errors="replace"), "bytes": len(value)}

    def moment(self, alert: str) -> dict[str, Any] | None:
        """Return key, partition and time of an alert that is still known."""
        with self.lock:
            episode = self.board.episodes.get(alert)
        if episode is None:
            return None
        return {"key": episode.last.key, "partition": episode.last.partition, "at_ms": episode.last.since_ms}

    def say(self, said: Said) -> None:
        """Append feedback; a repetition of what was taken in already changes nothing."""
        with self.lock:
            if self.board.known(said.id):
                return
        now_ms = self.wall_ms()
        record = FeedbackRecord(
            id=said.id,
            action=said.action,
            key=said.key,
            partition=said.partition,
            who=said.who.strip(),
            at_ms=now_ms,
            alert=said.alert,
            note=said.note.strip(),
            until_ms=now_ms + round(said.minutes * 60_000) if said.action == "mute" else None,
        )
        self.desk.ask(partial(append_feedback, topic=self.board.topic, record=record))


def append_feedback(log: EventLog, topic: str, record: FeedbackRecord) -> None:
    """Write feedback beside its key's scores; the topic is made if need be."""
    log.create_topic(feedback_topic(topic), log.topic(topic).partitions)
    new = NewRecord(record.key.encode(), feedback.encode(record), partition=record.partition)
    log.append(feedback_topic(topic), [new])


@dataclass
class KeyWatch:
    """One reader's look at one key: all of the span first, then what is new, in bins."""

    source: BoardSource
    key: Key
    span_ms: int
    features: list[str]
    next_bin: int | None = None
    seen_events: int = -1
    told: dict[str, Any] = field(default_factory=dict)

    def next(self) -> dict[str, Any] | None:
        """Return what is new of the key, or None."""
        board, width = self.source.board, bin_width_ms(self.span_ms)
        with self.source.lock:
            about, now_ms = board.key(self.key, self.source.wall_ms()), board.fleet.now_ms
            if about is None:
                return None
            first = (now_ms - self.span_ms) // width if self.next_bin is None else self.next_bin
            new = about["events"] != self.seen_events
            found = board.stretch(self.key, board.series.starts_ms(first, width), now_ms) if new else None
        answer: dict[str, Any] = {"now_ms": now_ms}
        if found is not None:
            series = board.series.make(found[0], width, self.features, first)
            answer["series"] = series
            if self.next_bin is None:
                answer |= {"first": True, "reaches_back": found[1], "from_ms": first * width, "span_ms": self.span_ms}
            self.next_bin = series["score"]["bin"][-1] if series["score"]["bin"] else first
            self.seen_events = about["events"]
        changed = {name: value for name, value in about.items() if self.told.get(name, _UNTOLD) != value}
        self.told = about
        return answer | {"about": changed} if changed or found else None


_UNTOLD = object()
