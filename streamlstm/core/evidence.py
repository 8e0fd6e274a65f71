"""Results → records: what a score says, and what an alert shows the person who is woken by it."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamlstm.core.advance import BY_SILENCE, DUPLICATE, LATE, SCORED_EVENT, STATUSES, Results
from streamlstm.core.alert import ACTIONS, NOTHING, RESOLVED, alert_id
from streamlstm.core.bundle import Bundle
from streamlstm.core.channels import NAMES
from streamlstm.core.event import EventBatch
from streamlstm.core.feature import BAND_LIMIT, unsquash
from streamlstm.core.record import AlertRecord, FeatureEvidence, ScoreRecord

Number = TypeVar("Number", float, float | None)


def score_records(topic: str, batch: EventBatch, results: Results, bundle: Bundle) -> list[ScoreRecord]:
    """Return one record per event that is neither late nor a duplicate, in order."""
    columns = zip(
        batch.keys,
        batch.partition.tolist(),
        batch.timestamp_ms.tolist(),
        batch.offset.tolist(),
        results.status.tolist(),
        results.score.tolist(),
        results.probability.tolist(),
        results.threshold.tolist(),
        results.opened_offset.tolist(),
        results.cut_short.tolist(),
        strict=True,
    )
    model = bundle.name
    records = []
    for key, partition, time_ms, offset, status, score, probability, threshold, opened, cut_short in columns:
        if status in (LATE, DUPLICATE):
            continue
        alert = None if opened < 0 or cut_short else alert_id(topic, partition, opened)
        if status == SCORED_EVENT:
            record = ScoreRecord(key.decode(), time_ms, offset, "scored", model, score, probability, threshold, alert)
        else:
            record = ScoreRecord(key.decode(), time_ms, offset, STATUSES[status], model)  # type: ignore[arg-type]
        records.append(record)
    return records


def alert_records(topic: str, batch: EventBatch, results: Results, bundle: Bundle) -> list[AlertRecord]:
    """Return the alert records of a poll, in the order of its events."""
    acting = np.flatnonzero((results.action != NOTHING) | (results.cut_short != 0)).tolist()
    return [
        _cut_short(topic, i, batch, results, bundle)
        if results.cut_short[i]
        else _acted(topic, i, batch, results, bundle)
        for i in acting
    ]


def _acted(topic: str, i: int, batch: EventBatch, results: Results, bundle: Bundle) -> AlertRecord:
    """Return what the scored event ``i`` did to its key's episode, with the evidence."""
    adapting = bool(results.adapting[i])
    resolved = results.action[i] == RESOLVED
    return msgspec.structs.replace(
        _change(topic, i, batch, results, bundle),
        action=ACTIONS[results.action[i]],
        score=float(results.score[i]),
        tail_probability=float(results.probability[i]),
        threshold=float(results.threshold[i]),
        adapting=adapting,
        reason=("adapted" if adapting else "calm") if resolved else None,
        channels=dict(zip(NAMES, results.surprises[i].tolist(), strict=True)),
        features=_features(i, batch, results, bundle),
    )


def _cut_short(topic: str, i: int, batch: EventBatch, results: Results, bundle: Bundle) -> AlertRecord:
    """Return the end of an episode whose key was started anew; told at the key's next event."""
    reason = "silence" if results.cut_short[i] == BY_SILENCE else "reset"
    return msgspec.structs.replace(_change(topic, i, batch, results, bundle), reason=reason)


def _change(topic: str, i: int, batch: EventBatch, results: Results, bundle: Bundle) -> AlertRecord:
    """Return what every alert record says of its episode and of event ``i``."""
    partition, opened_offset = int(batch.partition[i]), int(results.opened_offset[i])
    return AlertRecord(
        id=alert_id(topic, partition, opened_offset),
        action="resolved",
        key=batch.keys[i].decode(),
        topic=topic,
        partition=partition,
        opened_offset=opened_offset,
        offset=int(batch.offset[i]),
        since_ms=int(results.opened_timestamp_ms[i]),
        time_ms=int(batch.timestamp_ms[i]),
        events=int(results.episode_events[i]),
        peak_score=float(results.peak_score[i]),
        model=bundle.name,
    )


def _features(i: int, batch: EventBatch, results: Results, bundle: Bundle) -> list[FeatureEvidence]:
    """Return expected against actual with its band, and the share, for every numeric feature."""
    scaler = bundle.scaler_of.get(batch.keys[i].decode(), 0)
    frame = bundle.schema.frame_samples
    location, half_width = results.location[i], results.scale[i] * bundle.band
    evidence = []
    for channel, name in enumerate(bundle.schema.numeric):
        part = slice(channel * frame, (channel + 1) * frame)
        mean = float(bundle.feature.mean[scaler, channel])
        deviation = float(bundle.feature.deviation[scaler, channel])
        actual = [None if np.isnan(value) else float(value) for value in batch.values[i, part]]
        evidence.append(
            FeatureEvidence(
                name=name,
                unit=bundle.schema.features[name].unit,
                share=float(results.shares[i, part].sum()),
                actual=_one_or_many(actual),
                expected=_one_or_many(in_units(location[part], mean, deviation)),
                low=_one_or_many(in_units(location[part] - half_width[part], mean, deviation)),
                high=_one_or_many(in_units(location[part] + half_width[part], mean, deviation)),
            )
        )
    return evidence


def in_units(squashed: NDArray[np.float32], mean: float, deviation: float) -> list[float]:
    """Return squashed values in their feature's unit; a band that reaches absurdly far is cut off."""
    shown = np.clip(squashed, np.float32(-BAND_LIMIT), np.float32(BAND_LIMIT))
    return [mean + deviation * float(unsquash(value)) for value in shown]


def _one_or_many(values: list[Number]) -> Number | list[Number]:
    return values[0] if len(values) == 1 else values
