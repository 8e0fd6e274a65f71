"""Are the forecast's bands as wide as they say, and do alerts name the features at fault?"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamlstm.evaluation.ours import Run
from streamlstm.evaluation.stream import Stream
from streamlstm.evaluation.task import Task

BANDS = (0.5, 0.9, 0.99)


class Coverage(msgspec.Struct, frozen=True):
    """The share of values within the band that held ``stated`` of the held-out history: on unlabelled test events.

    None if there are none.
    """

    stated: float
    found: float | None


class Attribution(msgspec.Struct, frozen=True):
    """HitRate@100 %: of the k features at fault in a stretch, how many are among the k with the largest shares.

    Mean over stretches with an alert record inside, the record with the highest score telling; ``chance`` is what a
    random order of the features would have.
    """

    hit_rate: float | None
    chance: float | None
    faults: int
    alerted: int


def coverage(run: Run, stream: Stream) -> list[Coverage]:
    """Return how many unlabelled test values lie in bands of several widths, fitted value by value on held-out data."""
    held_out = run.trained.calibrated
    results = held_out.results
    off = np.abs(results.inputs - results.location) / results.scale
    counted = held_out.held_out[:, None] & ~np.isnan(run.trained.history.values[held_out.events]) & np.isfinite(off)
    tested = np.abs(stream.values - run.location) / run.scale
    use = (stream.test & ~stream.label)[:, None] & stream.present & np.isfinite(tested)
    found = []
    for stated in BANDS:
        half = np.array([_quantile(off[counted[:, d], d], stated) for d in range(off.shape[1])])
        inside = tested <= half
        found.append(Coverage(stated, float(inside[use].mean()) if use.any() else None))
    return found


def _quantile(sizes: NDArray[np.float32], share: float) -> float:
    return float(np.quantile(sizes, share)) if len(sizes) else np.inf


def attribution(task: Task, run: Run, stream: Stream) -> Attribution | None:
    """Judge the feature shares of alert records; None where it is not known which features were at fault."""
    if not task.faults:
        return None
    index_of = stream.record_index
    rates, chances = [], []
    for fault in task.faults:
        inside = [record for at, record in run.alerts if fault.start <= index_of[at] < fault.end and record.features]
        if not inside:
            continue
        worst = max(inside, key=lambda record: record.score or 0.0)
        ranked = sorted(worst.features, key=lambda feature: -feature.share)
        named = {feature.name for feature in ranked[: len(fault.features)]}
        rates.append(len(named & set(fault.features)) / len(fault.features))
        chances.append(len(fault.features) / len(ranked))
    return Attribution(
        hit_rate=float(np.mean(rates)) if rates else None,
        chance=float(np.mean(chances)) if chances else None,
        faults=len(task.faults),
        alerted=len(rates),
    )
