"""Published suites, read from small files of the same layout."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from streamlstm.errors import SettingsError
from streamlstm.evaluation.detection import Detection
from streamlstm.evaluation.stream import decode as decode_task
from streamlstm.evaluation.stream import stream_of
from streamlstm.evaluation.suites import load_suite, own_measures_of, suite_names
from streamlstm.evaluation.task import Fault, Task

RNG = np.random.default_rng(0)


def test_every_suite_is_described() -> None:
    """A sentence for people, and the folders it needs."""
    assert suite_names() == ["asd", "mitbih", "nab", "skab", "smd", "ucr"]


def test_unknown_suite_and_missing_data_are_refused(tmp_path: Path) -> None:
    """Naming what there is, and where the data should be."""
    with pytest.raises(SettingsError, match="no suite 'yahoo'; there are asd, mitbih"):
        load_suite("yahoo", tmp_path)
    with pytest.raises(SettingsError, match=f"needs {tmp_path / 'ucr'}"):
        load_suite("ucr", tmp_path)


def tasks_of(name: str, data: Path) -> list[Task]:
    """Read a suite."""
    return list(load_suite(name, data).tasks(data))


def test_ucr_reads_its_files_name(tmp_path: Path) -> None:
    """Rows count from 1, the anomaly's end is included; the archive's verdict allows for 100 rows."""
    (tmp_path / "ucr").mkdir()
    np.savetxt(tmp_path / "ucr" / "007_UCR_Anomaly_Bond_300_500_510.txt", RNG.normal(size=800))
    (task,) = tasks_of("ucr", tmp_path)
    assert (task.name, len(task.history), len(task.test)) == ("UCR 007", 300, 500)
    assert np.flatnonzero(task.label).tolist() == list(range(199, 210))
    stream = stream_of(task, decode_task(task))
    own = own_measures_of(load_suite("ucr", tmp_path))
    score = np.where(stream.test, 0.0, np.nan)
    for at, verdict in ((99, 1.0), (98, 0.0), (309, 1.0), (310, 0.0)):
        one = score.copy()
        one[300 + at] = 1.0
        nothing = np.zeros(len(score), bool)
        assert own(stream, Detection("x", one, nothing, nothing - 1)) == {"highest score within 100 rows": verdict}


@pytest.mark.parametrize(("name", "file"), [("smd", "machine-9-9"), ("asd", "omi-9")])
def test_server_metrics_have_faults(name: str, file: str, tmp_path: Path) -> None:
    """Metrics count from 1; test times go on after the history's."""
    (tmp_path / name / "interpretation").mkdir(parents=True)
    label = np.zeros(50, np.uint8)
    label[5:9] = 1
    values = RNG.random((350, 3)).astype(np.float32)
    np.savez(tmp_path / name / f"{file}.npz", train=values[:300], test=values[300:], label=label)
    (tmp_path / name / "interpretation" / f"{file}.txt").write_text("5-9:1,3\n20-22:2\n")
    (task,) = tasks_of(name, tmp_path)
    assert task.name == f"{name.upper()} {file.removeprefix('machine-')}"
    assert task.faults == (Fault(5, 9, ("m1", "m3")), Fault(20, 22, ("m2",)))
    assert task.label.sum() == 4
    assert stream_of(task, decode_task(task)).follows.all()
    first = msgspec.json.decode(task.test[0].value)
    assert [first[name] for name in ("m1", "m2", "m3")] == values[300].astype(float).tolist()


def test_skab_experiments_are_keys(tmp_path: Path) -> None:
    """400 rows of each are history."""
    (tmp_path / "skab" / "valve1").mkdir(parents=True)
    for number in (0, 1):
        table = pd.DataFrame(
            {
                "datetime": pd.date_range("2020-03-09 10:00", periods=450, freq="s").astype(str),
                "Pressure": RNG.normal(size=450),
                "anomaly": (np.arange(450) >= 440).astype(float),
                "changepoint": 0.0,
            }
        )
        table.to_csv(tmp_path / "skab" / "valve1" / f"{number}.csv", sep=";", index=False)
    (task,) = tasks_of("skab", tmp_path)
    assert task.schema.numeric == ("Pressure",)
    assert (len(task.history), len(task.test), task.label.sum()) == (800, 100, 20)


def test_mitbih_beats_are_labelled_around_their_mark(tmp_path: Path) -> None:
    """.3 s: 36 samples at 120 Hz, in frames of 8; the first 40 % are history."""
    wfdb = pytest.importorskip("wfdb")
    (tmp_path / "mitdb_pvc").mkdir()
    (tmp_path / "mitdb_100").mkdir()
    samples = RNG.normal(0, 100, 24_000).astype(np.int16)
    np.savez(tmp_path / "mitdb_pvc" / "106.npz", ecg_adu=samples, pvc=np.array([15_000]), beats=np.array([15_000]))
    signal = (samples[:, None] / 200.0).astype(float)
    with warnings.catch_warnings():  # wfdb 4.3 uses what pandas 4 will not have
        warnings.simplefilter("ignore")
        wfdb.wrsamp("100", 360, ["mV"], ["MLII"], signal, fmt=["16"], write_dir=str(tmp_path / "mitdb_100"))
        wfdb.wrann("100", "atr", np.array([12_000, 18_000]), ["N", "A"], write_dir=str(tmp_path / "mitdb_100"))
    hundred, other = tasks_of("mitbih", tmp_path)
    assert (hundred.name, other.name) == ("MIT-BIH 100", "MIT-BIH 106")
    assert (len(other.history), len(other.test)) == (400, 600)
    at = np.flatnonzero(other.label)  # mark at sample 5,000 of 120 Hz, event 625 of all
    assert at.tolist() == [222, 223, 224, 225, 226, 227]
    assert hundred.label.sum() in (5, 6)  # the atrial beat, not the normal one


def nab_folder(data: Path) -> None:
    """Write two files with a window each."""
    windows = {}
    for name in ("one", "two"):
        (data / "nab" / "data" / "real").mkdir(parents=True, exist_ok=True)
        times = pd.date_range("2014-01-01", periods=1000, freq="5min")
        table = pd.DataFrame({"timestamp": times.astype(str), "value": RNG.normal(size=1000)})
        table.to_csv(data / "nab" / "data" / "real" / f"{name}.csv", index=False)
        windows[f"real/{name}.csv"] = [[f"{times[500]}.000000", f"{times[599]}.000000"]]
    (data / "nab" / "labels").mkdir()
    (data / "nab" / "labels" / "combined_windows.json").write_text(json.dumps(windows))


def test_nab_has_a_key_per_file_and_its_own_score(tmp_path: Path) -> None:
    """Probation is history; a detector that alerts at each window's first row has 100 by every rule."""
    nab_folder(tmp_path)
    (task,) = tasks_of("nab", tmp_path)
    assert (len(task.history), len(task.test), task.label.sum()) == (300, 1700, 200)
    stream = stream_of(task, decode_task(task))
    own = own_measures_of(load_suite("nab", tmp_path))
    first = np.array([part.start + 500 for part in stream.of_each_key()])
    score = np.where(stream.test, 0.0, np.nan)
    score[first] = 1.0
    alert = np.full(len(stream), -1)
    alert[first] = first
    perfect = own(stream, Detection("x", score, alert >= 0, alert))
    assert len(perfect) == 9
    assert all(value == pytest.approx(100.0) for value in perfect.values())
    silent = own(stream, Detection("x", score * 0, alert < -1, alert * 0 - 1))
    assert silent["standard, label-free"] == 0.0
