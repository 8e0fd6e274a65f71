"""MIT-BIH arrhythmia records: one lead at 120 Hz, 8 samples an event; the first 40 % are history.

A beat marked abnormal labels .3 s around it. In 100 abnormal is every beat that is not normal; in the others, from
which only these marks are here, every ventricular beat.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from streamlstm.core.schema import StreamSchema
from streamlstm.evaluation.task import Task, events_of, frame_label, regular_times

ABOUT = "MIT-BIH arrhythmia records, one lead at 120 Hz in frames of 8; the first 40 % are history"
FOLDERS = ("mitdb_100", "mitdb_pvc")
SCHEMA = StreamSchema.from_toml('timestamp_unit = "ms"\nframe_samples = 8\n[features.ecg]\nunit = "mV"\n')
TARGETS = {"106": 0.50, "119": 0.55}
ABNORMAL = "AVaJSFejE"
THINNED = 3  # of the 360 samples a second the mean of three is one: causal, and enough for a beat
HALF_BEAT = 18  # samples at 120 Hz
HISTORY_SHARE = 0.4


def tasks(data: Path) -> Iterator[Task]:
    """Yield a task per record."""
    yield _record("100", *_wfdb(data / "mitdb_100" / "100"))
    for path in sorted((data / "mitdb_pvc").glob("*.npz")):
        with np.load(path) as arrays:
            yield _record(path.stem, arrays["ecg_adu"] / 200.0, arrays["pvc"])


def _wfdb(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    with warnings.catch_warnings():  # wfdb 4.3 uses what pandas 4 will not have
        warnings.simplefilter("ignore")
        import wfdb

        marks, record = wfdb.rdann(str(path), "atr"), wfdb.rdrecord(str(path), channels=[0])
    abnormal = [at for at, kind in zip(marks.sample, marks.symbol, strict=True) if kind in ABNORMAL]
    return record.p_signal[:, 0], np.array(abnormal, dtype=np.int64)


def _record(name: str, millivolt: NDArray[np.float64], abnormal: NDArray[np.int64]) -> Task:
    whole = len(millivolt) // THINNED * THINNED
    samples = millivolt[:whole].reshape(-1, THINNED).mean(axis=1)
    label = np.zeros(len(samples), dtype=bool)
    for beat in abnormal // THINNED:
        label[max(0, beat - HALF_BEAT) : beat + HALF_BEAT] = True
    table = pd.DataFrame({"time": regular_times(len(samples), 1000 / 120), "ecg": samples.round(4)})
    cut = int(HISTORY_SHARE * len(table)) // SCHEMA.frame_samples * SCHEMA.frame_samples
    return Task(
        name=f"MIT-BIH {name}",
        schema=SCHEMA,
        history=events_of(table[:cut], SCHEMA),
        test=events_of(table[cut:], SCHEMA),
        label=frame_label(label[cut:], SCHEMA),
        target=TARGETS.get(name),
    )
