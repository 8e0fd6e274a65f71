"""Hold alerts against the truth: what was injected, found, missed, false, and after how long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from simulators.feed import Fault
from streamlstm.core.record import AlertRecord

GRACE_MS = 10_000  # after a fault ends, for what is still ringing: an alert opened there is not a false one


@dataclass(frozen=True)
class Episode:
    """One alert from its opening to its end (or to the end of the feed), UTC ms."""

    key: str
    since_ms: int
    until_ms: int


@dataclass(frozen=True)
class Verdict:
    """How one kind of fault was detected; ``delays_s`` has one entry per fault found."""

    kind: str
    injected: int
    delays_s: tuple[float, ...]

    @property
    def found(self) -> int:
        """Faults with an alert open at some time from their start to the grace after their end."""
        return len(self.delays_s)

    @property
    def median_delay_s(self) -> float | None:
        """Median time from a fault's start to its alert."""
        return median(self.delays_s) if self.delays_s else None


def episodes_of(alerts: Sequence[AlertRecord], end_ms: int) -> list[Episode]:
    """Return the episodes that alert records tell of; one still open ends with the feed, at ``end_ms``."""
    ended = {alert.id: alert.time_ms for alert in alerts if alert.action == "resolved"}
    opened = [alert for alert in alerts if alert.action == "opened"]
    return [Episode(alert.key, alert.since_ms, ended.get(alert.id, end_ms)) for alert in opened]


def judge(faults: Sequence[Fault], episodes: Sequence[Episode], grace_ms: int = GRACE_MS) -> tuple[list[Verdict], int]:
    """Return a verdict per kind of fault, and the number of false alarms.

    An alert that opens up to ``grace_ms`` after a fault's end is still its own. A false alarm is an episode that
    touches no fault of its key. An alert that was already open when a fault began counts as found with no delay:
    nobody would be called twice.
    """
    verdicts = []
    for kind in sorted({fault.kind for fault in faults}):
        chosen = [fault for fault in faults if fault.kind == kind]
        delays = [delay for fault in chosen if (delay := _delay_s(fault, episodes, grace_ms)) is not None]
        verdicts.append(Verdict(kind, len(chosen), tuple(delays)))
    false = [episode for episode in episodes if not any(_touch(fault, episode, grace_ms) for fault in faults)]
    return verdicts, len(false)


def _touch(fault: Fault, episode: Episode, grace_ms: int) -> bool:
    return (
        fault.key == episode.key and episode.since_ms <= fault.end_ms + grace_ms and episode.until_ms >= fault.start_ms
    )


def _delay_s(fault: Fault, episodes: Iterable[Episode], grace_ms: int) -> float | None:
    opened = [episode.since_ms for episode in episodes if _touch(fault, episode, grace_ms)]
    return max(0, min(opened) - fault.start_ms) / 1000 if opened else None
