"""Real, labelled series for tests and benchmarks, as tables; the data themselves are not part of the repository."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(os.environ.get("STREAMLSTM_DATA", Path(__file__).parents[2] / "shared" / "data"))
START = pd.Timestamp("2020-01-01", tz="UTC")


@dataclass(frozen=True)
class Task:
    """One labelled series: a stream schema, rows to learn from, rows to score, and a label per scored row."""

    name: str
    schema: str
    history: pd.DataFrame
    live: pd.DataFrame
    label: np.ndarray
    frame_samples: int = 1

    @property
    def event_label(self) -> np.ndarray:
        """Label of each scored event: whether any of its samples is anomalous."""
        whole = len(self.label) // self.frame_samples * self.frame_samples
        return self.label[:whole].reshape(-1, self.frame_samples).max(axis=1)


def _ecg(name: str, millivolt: np.ndarray, abnormal: np.ndarray) -> Task:
    """120 Hz (means of three samples: causal), 8 samples an event; the first 40 % are history.

    A beat marked abnormal labels 0.3 s around it (36 samples).
    """
    whole = len(millivolt) // 3 * 3
    samples = millivolt[:whole].reshape(-1, 3).mean(axis=1)
    label = np.zeros(len(samples), dtype=np.int8)
    for beat in abnormal // 3:
        label[max(0, beat - 18) : beat + 18] = 1
    time_ms = (np.arange(len(samples)) * 1000 / 120 + START.timestamp() * 1000).round().astype(np.int64)
    table = pd.DataFrame({"time": time_ms, "ecg": samples.round(4)})
    cut = int(0.4 * len(table)) // 8 * 8
    schema = 'timestamp_unit = "ms"\nframe_samples = 8\n[features.ecg]\nunit = "mV"\n'
    return Task(name, schema, table[:cut], table[cut:], label[cut:], 8)


def mitbih_100() -> Task:
    """MIT-BIH record 100, lead MLII, read from its WFDB files; abnormal: every beat that is not N."""
    path = str(DATA / "mitdb_100" / "100")
    with warnings.catch_warnings():  # wfdb 4.3 uses what pandas 4 will not have
        warnings.simplefilter("ignore")
        import wfdb

        marks, record = wfdb.rdann(path, "atr"), wfdb.rdrecord(path, channels=[0])
    abnormal = np.array([at for at, kind in zip(marks.sample, marks.symbol, strict=True) if kind in "AVaJSFejE"])
    return _ecg("MIT-BIH 100", record.p_signal[:, 0], abnormal)


def mitbih(record: int) -> Task:
    """MIT-BIH record 106, 116 or 119; abnormal: ventricular beats."""
    with np.load(DATA / "mitdb_pvc" / f"{record}.npz") as data:
        return _ecg(f"MIT-BIH {record}", data["ecg_adu"] / 200.0, data["pvc"])


def skab_valve1() -> Task:
    """SKAB's valve1 experiments, a key each; history is the first 400 rows of each, as in SKAB's own protocol."""
    files = sorted((DATA / "skab" / "valve1").glob("*.csv"), key=lambda path: int(path.stem))
    tables = [pd.read_csv(path, sep=";").assign(experiment=path.stem) for path in files]
    sensors = [name for name in tables[0].columns if name not in ("datetime", "anomaly", "changepoint", "experiment")]
    schema = 'key = "experiment"\ntimestamp = "datetime"\n' + "".join(f"[features.{json.dumps(n)}]\n" for n in sensors)
    columns = ["experiment", "datetime", *sensors]
    live = pd.concat([table[400:] for table in tables])
    history = pd.concat([table[:400] for table in tables])
    return Task("SKAB valve1", schema, history[columns], live[columns], live["anomaly"].to_numpy().astype(np.int8))


def nab(name: str = "realKnownCause/nyc_taxi.csv") -> Task:
    """One NAB file; the first 15 % (its probationary period) are history."""
    table = pd.read_csv(DATA / "nab" / "data" / name)
    windows = json.loads((DATA / "nab" / "labels" / "combined_windows.json").read_text())[name]
    moments = pd.to_datetime(table["timestamp"])
    label = np.zeros(len(table), dtype=np.int8)
    for first, last in windows:
        label[(moments >= first) & (moments <= last)] = 1
    cut = int(0.15 * len(table))
    schema = 'timestamp = "timestamp"\ncalendar = true\n[features.value]\n'
    return Task(f"NAB {Path(name).stem}", schema, table[:cut], table[cut:], label[cut:])


def available() -> bool:
    """Whether the data are on this machine."""
    return (DATA / "nab").is_dir()
