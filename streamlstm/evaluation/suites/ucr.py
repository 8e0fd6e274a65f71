"""UCR Anomaly Archive: one value, one anomaly per file; its name says where history ends and the anomaly lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from streamlstm.core.schema import StreamSchema
from streamlstm.evaluation.detection import Detection
from streamlstm.evaluation.stream import Stream
from streamlstm.evaluation.task import Task, events_of, frame_label, regular_times

ABOUT = "UCR Anomaly Archive, one value and one anomaly per file; history as the file's name says"
FOLDERS = ("ucr",)
SCHEMA = StreamSchema.from_toml('timestamp_unit = "ms"\n[features.value]\n')
TARGETS = {"135": 0.45, "138": 0.45}
NEAR_ROWS = 100  # the archive's rule: the highest score must lie so near the anomaly
STEP_MS = 10  # no rate is given; only gaps would matter, and they are all alike


def tasks(data: Path) -> Iterator[Task]:
    """Yield a task per file."""
    for path in sorted((data / "ucr").glob("*_UCR_Anomaly_*.txt")):
        number = path.stem.split("_")[0]
        cut, first, last = (int(part) for part in path.stem.split("_")[-3:])
        values = np.loadtxt(path)
        label = np.zeros(len(values), dtype=bool)
        label[first - 1 : last] = True
        table = pd.DataFrame({"time": regular_times(len(values), STEP_MS), "value": values})
        cut = cut // SCHEMA.frame_samples * SCHEMA.frame_samples
        yield Task(
            name=f"UCR {number}",
            schema=SCHEMA,
            history=events_of(table[:cut], SCHEMA),
            test=events_of(table[cut:], SCHEMA),
            label=frame_label(label[cut:], SCHEMA),
            target=TARGETS.get(number),
        )


def own_measures(stream: Stream, detection: Detection) -> dict[str, float]:
    """Return the archive's own verdict: 1 if the highest score lies within 100 rows of the anomaly, else 0."""
    near = NEAR_ROWS // SCHEMA.frame_samples
    truth = np.flatnonzero(stream.label)
    highest = int(np.nanargmax(detection.score))
    return {"highest score within 100 rows": float(truth[0] - near <= highest <= truth[-1] + near)}
