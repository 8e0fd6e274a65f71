"""What a detector says of the events of a task, and what of it came true."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamlstm.evaluation.metrics import Stretch, average_precision, recall_at_rate, roc_area, stretches, vus_pr
from streamlstm.evaluation.stream import Stream

WEEK_MS = 7 * 86_400_000
PER_EVENTS = 10_000


@dataclass(frozen=True)
class Detection:
    """One detector on one stream, (N,): score (NaN: none), whether the event was flagged, and the alert that was open.

    ``alert`` numbers alerts, each of one key; −1 where none was open.
    """

    detector: str
    score: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    alert: NDArray[np.int64]


class Measures(msgspec.Struct, frozen=True):
    """How well one detector did on some events; a figure is None where it has no meaning.

    ``recall_at_rate``: the share of labelled stretches that one threshold for all keys finds, set with the labels to
    flag the promised share of unlabelled events.
    ``precision``: the share of alerts that opened in a labelled stretch. ``event_recall``: the share of labelled
    stretches in which such an alert was open. ``delay_events`` and ``delay_s``: median time from a stretch's start to
    the first alert that opened in it. ``false_alarms_per_10000``: alerts that opened in none, per 10,000 unlabelled
    events. ``realised``: the share of unlabelled events flagged;
    ``realised_all``: of all events. ``watched_ms``: from each key's first event to its last, together. An alert
    reaches from the event that opens it to its last flagged one.
    """

    events: int
    labelled: float
    stretches: int
    average_precision: float | None
    roc: float | None
    vus_pr: float | None
    recall_at_rate: float | None
    alerts: int
    event_recall: float | None
    precision: float | None
    delay_events: float | None
    delay_s: float | None
    false_alarms_per_10000: float | None
    false_alarms_per_key_week: float | None
    realised: float | None
    realised_all: float | None
    watched_ms: float


@dataclass(frozen=True)
class Alarms:
    """The alerts and labelled stretches of some keys, by position in the stream; which stretches were found and which
    alerts were true; and from a stretch's start to the first alert in it, events and ms, where one opened.
    """

    alerts: list[Stretch]
    truth: list[Stretch]
    found: list[bool]
    true: list[bool]
    delay_events: list[int]
    delay_ms: list[int]


def match(stream: Stream, detection: Detection, judged: NDArray[np.bool_], keys: list[slice]) -> Alarms:
    """Return alerts and stretches of some keys; only ``judged`` events, (N,), count."""
    alerts: list[Stretch] = []
    truth: list[Stretch] = []
    for part in keys:
        offset = part.start
        truth += [
            Stretch(s.start + offset, s.end + offset)
            for s in stretches(stream.label[part])
            if judged[part][s.start : s.end].any()
        ]
        alerts += _alerts(detection, judged, part)
    true = [any(_opens_in(alert, stretch) for stretch in truth) for alert in alerts]
    trusted = [alert for alert, ok in zip(alerts, true, strict=True) if ok]
    found = [any(_meet(alert, stretch) for alert in trusted) for stretch in truth]
    firsts = [(s.start, next((a.start for a in trusted if _opens_in(a, s)), None)) for s in truth]
    pairs = [(start, first) for start, first in firsts if first is not None]
    times = stream.timestamp_ms
    return Alarms(
        alerts,
        truth,
        found,
        true,
        delay_events=[first - start for start, first in pairs],
        delay_ms=[int(times[first] - times[start]) for start, first in pairs],
    )


def _opens_in(alert: Stretch, stretch: Stretch) -> bool:
    return stretch.start <= alert.start < stretch.end


def _meet(one: Stretch, other: Stretch) -> bool:
    return one.start < other.end and other.start < one.end


def _alerts(detection: Detection, judged: NDArray[np.bool_], part: slice) -> list[Stretch]:
    """Return the alerts of one key, each up to its last flagged event; one without such an event is its opening."""
    open_now = np.where(judged[part], detection.alert[part], -1)
    numbers, starts = np.unique(open_now, return_index=True)
    alerts = []
    for number, start in zip(numbers.tolist(), starts.tolist(), strict=True):
        if number >= 0:
            flagged = np.flatnonzero((open_now == number) & detection.flagged[part])
            end = int(flagged[-1]) if len(flagged) else start
            alerts.append(Stretch(part.start + start, part.start + max(end, start) + 1))
    return sorted(alerts)


def measure(
    stream: Stream, detection: Detection, judged: NDArray[np.bool_], buffer: int, rate: float, key: int | None = None
) -> Measures:
    """Judge a detector on the ``judged`` events, (N,), of one key or of all; ``rate``: the promised alarm rate."""
    parts = list(stream.of_each_key())
    chosen = parts if key is None else [parts[key]]
    use = judged if key is None else judged & (stream.key == key)
    label, score = stream.label[use], detection.score[use]
    alarms = match(stream, detection, judged, chosen)
    calm = int((~label).sum())
    false = len(alarms.alerts) - sum(alarms.true)
    watched_ms = sum(_span_ms(stream, judged, part) for part in chosen)
    flagged = detection.flagged[use]
    return Measures(
        events=int(use.sum()),
        labelled=float(label.mean()) if len(label) else 0.0,
        stretches=len(alarms.truth),
        average_precision=average_precision(label, score),
        roc=roc_area(label, score),
        vus_pr=vus_pr(label, score, buffer, stream.key[use]),
        recall_at_rate=recall_at_rate(label, score, rate, stream.key[use]),
        alerts=len(alarms.alerts),
        event_recall=float(np.mean(alarms.found)) if alarms.found else None,
        precision=float(np.mean(alarms.true)) if alarms.true else None,
        delay_events=float(np.median(alarms.delay_events)) if alarms.delay_events else None,
        delay_s=float(np.median(alarms.delay_ms)) / 1000 if alarms.delay_ms else None,
        false_alarms_per_10000=PER_EVENTS * false / calm if calm else None,
        false_alarms_per_key_week=WEEK_MS * false / watched_ms if watched_ms > 0 else None,
        realised=float(flagged[~label].mean()) if calm else None,
        realised_all=float(flagged.mean()) if len(flagged) else None,
        watched_ms=watched_ms,
    )


def _span_ms(stream: Stream, judged: NDArray[np.bool_], part: slice) -> float:
    times = stream.timestamp_ms[part][judged[part]]
    return float(times.max() - times.min()) if len(times) else 0.0
