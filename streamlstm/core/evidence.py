"""Results → records: what a score says, and what an alert shows the person who is woken by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.alert import ACTIONS, NOTHING, RESOLVED, alert_id
from streamlstm.core.bundle import Bundle
from streamlstm.core.channels import NAMES
from streamlstm.core.columns import BY_NEXT, BY_RESET, BY_SILENCE, DUPLICATE, LATE, SCORED_EVENT, STATUSES, Results
from streamlstm.core.event import EventBatch
from streamlstm.core.feature import BAND_LIMIT, unsquash_all
from streamlstm.core.record import AlertRecord, FeatureEvidence, ScoreRecord

Told = Literal["all", "packed", "anomalous", "sampled"]  # which events have a score record; packed: all, see pack.py
REASONS: dict[int, Literal["silence", "reset", "followed"]] = {
    BY_SILENCE: "silence",
    BY_RESET: "reset",
    BY_NEXT: "followed",
}
SAMPLED_OF = 100  # events of a partition, of which one is told although nothing is unusual about it


def positions_told(batch: EventBatch, results: Results, told: Told, alarm_rate: np.float32) -> list[int]:
    """Return the positions of the events that have a score record, in order: those neither late nor a duplicate, and
    of these all; or those flagged or within an episode; or these and, by its offset, one in :data:`SAMPLED_OF`.

    An event's own result and offset decide, so a replay tells the same ones however it falls into polls.
    """
    kept = (results.status != LATE) & (results.status != DUPLICATE)
    if told not in ("all", "packed"):
        in_episode = (results.opened_offset >= 0) | (results.cut_short != 0)
        notable = in_episode | (results.probability <= alarm_rate)
        kept &= notable | (batch.offset % SAMPLED_OF == 0) if told == "sampled" else notable
    return np.flatnonzero(kept).tolist()


def score_records(
    topic: str, batch: EventBatch, results: Results, bundle: Bundle, told: list[int], *, explain_all: bool = False
) -> list[ScoreRecord]:
    """Return one record for each of the positions ``told``, in order.

    With ``explain_all`` each scored one says what was expected, as alerts do; the walk must have been asked for it.
    """
    status = results.status[told]
    numbers = [column[told].tolist() for column in (results.score, results.probability, results.threshold)]
    for j in np.flatnonzero(status != SCORED_EVENT).tolist():
        for column in numbers:
            column[j] = None
    alerts: list[str | None] = [None] * len(told)
    for j in np.flatnonzero((results.opened_offset[told] >= 0) & (status == SCORED_EVENT)).tolist():
        i = told[j]
        alerts[j] = alert_id(topic, int(batch.partition[i]), int(results.opened_offset[i]))
    columns: list[Iterable[Any]] = [
        [batch.keys[i].decode() for i in told],
        batch.timestamp_ms[told].tolist(),
        batch.offset[told].tolist(),
        [STATUSES[one] for one in status.tolist()],
        repeat(bundle.name),
        *numbers,
        alerts,
    ]
    if explain_all:
        explained = _explained(told, batch, results, bundle)
        columns.append([explained.get(i, []) for i in told])
    return list(map(ScoreRecord, *columns))


def alert_records(topic: str, batch: EventBatch, results: Results, bundle: Bundle) -> list[AlertRecord]:
    """Return the alert records of a poll, in the order of :func:`acting`."""
    return [
        _cut_short(topic, i, batch, results, bundle) if cut else _acted(topic, i, batch, results, bundle)
        for i, cut in acting(results)
    ]


def acting(results: Results) -> list[tuple[int, bool]]:
    """Return the positions of the events that have an alert record, in order, each with whether it tells the end of an
    episode that was cut short; an event that ends one and opens the next comes twice."""
    return [
        (i, cut)
        for i in np.flatnonzero((results.action != NOTHING) | (results.cut_short != 0)).tolist()
        for cut in (True, False)
        if (results.cut_short[i] if cut else results.action[i])
    ]


def _acted(topic: str, i: int, batch: EventBatch, results: Results, bundle: Bundle) -> AlertRecord:
    """Return what the scored event ``i`` did to its key's episode, with the evidence."""
    adapting = bool(results.adapting[i])
    resolved = results.action[i] == RESOLVED
    opened_offset = int(results.opened_offset[i])
    return AlertRecord(
        id=alert_id(topic, int(batch.partition[i]), opened_offset),
        action=ACTIONS[results.action[i]],  # type: ignore[arg-type]
        **_of_event(topic, i, batch, bundle),
        opened_offset=opened_offset,
        since_ms=int(results.opened_timestamp_ms[i]),
        events=int(results.episode_events[i]),
        peak_score=float(results.peak_score[i]),
        score=float(results.score[i]),
        tail_probability=float(results.probability[i]),
        threshold=float(results.threshold[i]),
        adapting=adapting,
        reason=("adapted" if adapting else "calm") if resolved else None,
        channels=_counted(results.surprises[i].tolist(), bundle),
        features=features_of([i], batch, results, bundle)[0],
    )


def _counted(decades: list[float], bundle: Bundle) -> dict[str, float]:
    """Return the surprise of each channel that has a part in the score."""
    weights = [*bundle.score.weights.tolist(), 1.0]  # of stillness, which is added to the mean
    return {name: one for name, one, weight in zip(NAMES, decades, weights, strict=True) if weight > 0}


def _cut_short(topic: str, i: int, batch: EventBatch, results: Results, bundle: Bundle) -> AlertRecord:
    """Return the end of an episode that had not calmed down; event ``i`` opens the next, or is the first of its key
    that was started anew."""
    opened_offset = int(results.cut_offset[i])
    return AlertRecord(
        id=alert_id(topic, int(batch.partition[i]), opened_offset),
        action="resolved",
        **_of_event(topic, i, batch, bundle),
        opened_offset=opened_offset,
        since_ms=int(results.cut_timestamp_ms[i]),
        events=int(results.cut_events[i]),
        peak_score=float(results.cut_peak_score[i]),
        reason=REASONS[int(results.cut_short[i])],
    )


def _of_event(topic: str, i: int, batch: EventBatch, bundle: Bundle) -> dict[str, Any]:
    """Return what every alert record says of event ``i``."""
    return {
        "key": batch.keys[i].decode(),
        "topic": topic,
        "partition": int(batch.partition[i]),
        "offset": int(batch.offset[i]),
        "time_ms": int(batch.timestamp_ms[i]),
        "model": bundle.name,
    }


def _explained(
    told: list[int], batch: EventBatch, results: Results, bundle: Bundle
) -> dict[int, list[FeatureEvidence]]:
    """Return the evidence of each scored event among those told, by its position."""
    scored = [i for i in told if results.status[i] == SCORED_EVENT]
    return dict(zip(scored, features_of(scored, batch, results, bundle), strict=True))


def features_of(
    events: Sequence[int], batch: EventBatch, results: Results, bundle: Bundle
) -> list[list[FeatureEvidence]]:
    """Return expected against actual with its band, and the share, of every numeric feature of some scored events."""
    schema, frame = bundle.schema, bundle.schema.frame_samples
    parts = [slice(channel * frame, (channel + 1) * frame) for channel in range(len(schema.numeric))]
    scaler = [bundle.scaler_of.get(batch.keys[i].decode(), 0) for i in events]
    mean = np.repeat(bundle.feature.mean[scaler], frame, axis=1)  # (events, D)
    deviation = np.repeat(bundle.feature.deviation[scaler], frame, axis=1)
    location, half_width = results.location[events], results.scale[events] * bundle.band
    columns = [
        [[None if value != value else value for value in row] for row in batch.values[events].tolist()],
        *(
            in_units(squashed, mean, deviation).tolist()
            for squashed in (location, location - half_width, location + half_width)
        ),
    ]
    shares = [_shares_of_one([float(results.shares[i, part].sum(dtype=np.float64)) for part in parts]) for i in events]
    return [
        [
            FeatureEvidence(name, schema.features[name].unit, share, *(_one_or_many(values[part]) for values in rows))
            for name, part, share in zip(schema.numeric, parts, sharing, strict=True)
        ]
        for sharing, *rows in zip(shares, *columns, strict=True)
    ]


def _shares_of_one(parts: list[float]) -> list[float]:
    """Return parts, which sum to one but for float32's rounding, as shares that sum to one."""
    total = sum(parts)
    return [part / total for part in parts] if total > 0 else parts


def in_units(
    squashed: NDArray[np.float32], mean: NDArray[np.float64] | float, deviation: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Return squashed values in their feature's unit, each with its own mean and deviation or all with one.

    A band that reaches absurdly far is cut off.
    """
    shown = np.clip(squashed, np.float32(-BAND_LIMIT), np.float32(BAND_LIMIT)).ravel()
    deviations = np.empty_like(shown)
    unsquash_all(deviations, shown)
    return mean + deviation * deviations.reshape(squashed.shape).astype(np.float64)


def _one_or_many(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values
