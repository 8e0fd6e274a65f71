"""Alerts from opened to resolved, and what people said about them; as many as fit, the open ones first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from streamlstm.core.feedback import FeedbackRecord, Key
from streamlstm.core.record import AlertRecord
from streamlstm.core.why import why

MAX_EPISODES = 500
SHOWN_SHARES = 3


@dataclass
class Episode:
    """An alert: its last record, the one that opened it if that was seen, what led it, and who said what."""

    last: AlertRecord
    opened: AlertRecord | None = None
    whys: list[str] = field(default_factory=list)
    acknowledged: FeedbackRecord | None = None
    verdict: FeedbackRecord | None = None

    @property
    def open(self) -> bool:
        """Whether it has not been resolved."""
        return self.last.action != "resolved"

    @property
    def key(self) -> Key:
        """Whose it is."""
        return self.last.partition, self.last.key

    def shown(self) -> dict[str, Any]:
        """Return what lists show of it."""
        alert = self.last
        telling = self.opened or alert
        shares = sorted(telling.features, key=lambda feature: -feature.share)[:SHOWN_SHARES]
        return {
            "id": alert.id,
            "key": alert.key,
            "partition": alert.partition,
            "open": self.open,
            "since_ms": alert.since_ms,
            "until_ms": None if self.open else alert.time_ms,
            "events": alert.events,
            "peak_score": alert.peak_score,
            "threshold": telling.threshold,
            "tail_probability": telling.tail_probability,
            "adapting": alert.adapting,
            "why": ", then ".join(dict.fromkeys((*self.whys[:1], *self.whys[-1:]))) or None,
            "reason": alert.reason,
            "shares": [[feature.name, feature.share] for feature in shares],
            "acknowledged": _said(self.acknowledged),
            "verdict": _said(self.verdict),
        }

    def evidence(self) -> dict[str, Any]:
        """Return all there is, for one who looks closer: the records as the webhook's receiver gets them."""
        return {
            **self.shown(),
            "records": [msgspec.to_builtins(record) for record in (self.opened, self.last) if record is not None],
        }


def _said(record: FeedbackRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {"action": record.action, "who": record.who, "at_ms": record.at_ms, "note": record.note}


class Episodes:
    """The episodes seen last, by id. What was said of one that is not known yet waits for it."""

    def __init__(self, most: int = MAX_EPISODES) -> None:
        self.dropped = 0
        self.opened = 0
        self._most = most
        self._episodes: OrderedDict[str, Episode] = OrderedDict()
        self._said: OrderedDict[str, FeedbackRecord] = OrderedDict()

    def __iter__(self) -> Iterator[Episode]:
        return iter(self._episodes.values())

    def get(self, alert: str) -> Episode | None:
        """Return an episode by its id."""
        return self._episodes.get(alert)

    def of(self, key: Key) -> list[Episode]:
        """Return a key's episodes, the newest first."""
        return [episode for episode in reversed(self._episodes.values()) if episode.key == key]

    def newest(self, most: int) -> list[Episode]:
        """Return the open ones and then the others, the newest first."""
        found = sorted(self._episodes.values(), key=lambda episode: (not episode.open, -episode.last.since_ms))
        return found[:most]

    @property
    def open_count(self) -> int:
        """How many are open."""
        return sum(episode.open for episode in self._episodes.values())

    def take(self, alert: AlertRecord) -> None:
        """Take the next alert record in."""
        episode = self._episodes.get(alert.id)
        if episode is None:
            episode = self._episodes[alert.id] = Episode(alert)
            for action in ("acknowledge", "verdict"):
                if said := self._said.pop(f"{alert.id} {action}", None):
                    self.take_feedback(said)
            self._make_room()
        if alert.action == "opened":
            episode.opened = alert
            self.opened += 1
        if (words := why(alert)) and words not in episode.whys:
            episode.whys.append(words)
        episode.last = alert

    def take_feedback(self, record: FeedbackRecord) -> None:
        """Take in what somebody said of an alert; the later word counts."""
        if record.alert is None or record.action in ("mute", "unmute"):
            return
        about = "acknowledge" if record.action == "acknowledge" else "verdict"
        episode = self._episodes.get(record.alert)
        if episode is None:
            self._said[f"{record.alert} {about}"] = record
            while len(self._said) > self._most:
                self._said.popitem(last=False)
        elif about == "acknowledge":
            episode.acknowledged = record
        else:
            episode.verdict = record

    def _make_room(self) -> None:
        while len(self._episodes) > self._most:
            oldest = next((name for name, episode in self._episodes.items() if not episode.open), None)
            self._episodes.pop(oldest or next(iter(self._episodes)))
            self.dropped += 1
