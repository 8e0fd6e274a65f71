"""WFDB records are tables like any other file: leads are columns, times come from the header."""

from __future__ import annotations

import subprocess
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from streamlstm.adapters import wfdb_files
from streamlstm.adapters.files import read_events, read_records, read_tables
from streamlstm.core.event import EventDecoder
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import SchemaError, SettingsError
from streamlstm.services.schema_drafter import draft_schema
from tests.real_data import DATA

START = datetime(2021, 3, 4, 5, 6, 7)
RECORD_100 = DATA / "mitdb_100" / "100.hea"
WARD = StreamSchema.from_toml('key = "record"\ntimestamp_unit = "ms"\nframe_samples = 4\n[features.II]\n[features.V5]')


def make_signals(samples: int) -> NDArray[np.float64]:
    """Return two leads in millivolts that the record's resolution of 1/200 mV holds exactly."""
    at = np.arange(samples)
    return np.column_stack([at % 7 - 3.0, (at % 11) / 200.0])


def make_record(directory: Path, signals: NDArray[np.float64], **header: Any) -> Path:
    """Write a record of two leads at 360 Hz, as the MIT-BIH database has them; return its header's path."""
    given = {"fs": 360, "sig_name": ["II", "V5"], "base_datetime": START} | header
    library = wfdb_files._library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # writing, unlike reading, goes through what pandas deprecates
        library.wrsamp(
            "bed7",
            units=["mV", "mV"],
            p_signal=signals,
            fmt=["16", "16"],
            adc_gain=[200.0, 200.0],
            baseline=[0, 0],
            write_dir=str(directory),
            **given,
        )
    return directory / "bed7.hea"


def edit_header(path: Path, *changes: tuple[str, str]) -> Path:
    """Replace text in a header, as a hand or a device may have written it."""
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


@pytest.mark.parametrize("rows", [1, 3, 10, 1000])
def test_wfdb_record_is_a_table_of_its_leads(tmp_path: Path, rows: int) -> None:
    """Leads are columns in physical units, the record is the key, and chunks make no difference."""
    signals = make_signals(10)
    tables = list(read_tables(make_record(tmp_path, signals), rows=rows))
    assert [len(table) for table in tables] == [min(rows, 10 - first) for first in range(0, 10, rows)]
    table = pd.concat(tables, ignore_index=True)
    assert list(table.columns) == ["record", "time", "II", "V5"]
    assert set(table["record"]) == {"bed7"}
    np.testing.assert_allclose(table[["II", "V5"]].to_numpy(), signals, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [7, 1000])
def test_wfdb_times_come_from_start_and_rate(tmp_path: Path, rows: int) -> None:
    """Sample i is taken i/rate after the start, to the microsecond, however long the record is."""
    table = pd.concat(read_tables(make_record(tmp_path, make_signals(800)), rows=rows), ignore_index=True)
    micros = (table["time"] - pd.Timestamp(START)) / pd.Timedelta(microseconds=1)
    assert micros[:4].tolist() == [0, 2778, 5556, 8333]
    assert micros[720] == 2_000_000
    assert (micros - np.arange(800) * 1e6 / 360).abs().max() <= 0.5


@pytest.mark.parametrize(
    ("header", "start"),
    [
        ({"base_datetime": None}, "2000-01-01 00:00:00"),
        ({"base_datetime": None, "base_time": START.time()}, "2000-01-01 05:06:07"),
        ({}, "2021-03-04 05:06:07"),
    ],
)
def test_wfdb_record_without_a_date_starts_in_2000(tmp_path: Path, header: dict[str, Any], start: str) -> None:
    """Public records hide when they were taken; a time of day is kept where there is one."""
    table = next(read_tables(make_record(tmp_path, make_signals(2), **header)))
    assert table["time"][0] == pd.Timestamp(start)


def test_wfdb_share_of_the_record_is_told_before_each_chunk(tmp_path: Path) -> None:
    """Progress comes from the length in the header."""
    shares: list[float] = []
    path = make_record(tmp_path, make_signals(10))
    told = [len(shares) for _ in read_tables(path, rows=4, on_share=shares.append)]
    assert told == [1, 2, 3]
    assert shares == [0.4, 0.8, 1.0]


def test_wfdb_record_is_never_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the record: the library is asked for a chunk at a time."""
    path = make_record(tmp_path, make_signals(100))
    library = wfdb_files._library()
    rdrecord, asked = library.rdrecord, []

    def counted(name: str, sampfrom: int, sampto: int) -> Any:
        asked.append((sampfrom, sampto))
        return rdrecord(name, sampfrom=sampfrom, sampto=sampto)

    monkeypatch.setattr(library, "rdrecord", counted)
    assert sum(len(table) for table in read_tables(path, rows=40)) == 100
    assert asked == [(0, 40), (40, 80), (80, 100)]


def test_wfdb_invalid_samples_are_missing_and_become_dead_letters(tmp_path: Path) -> None:
    """A lead that was off says nothing; only the frame that holds it is refused."""
    signals = make_signals(8)
    signals[5, 0] = np.nan
    (records,) = read_records(make_record(tmp_path, signals), WARD)
    batch, rejections = EventDecoder(WARD).decode(records)
    assert batch.record_index.tolist() == [0]
    assert [(rejection.record.offset, rejection.reason) for rejection in rejections] == [(1, "invalid")]


def test_wfdb_frames_become_events_that_a_scorer_reads(tmp_path: Path) -> None:
    """Training and scoring take a record as they take a CSV: keyed, framed, at the time of the last sample."""
    signals = make_signals(11)
    (records,) = read_records(make_record(tmp_path, signals), WARD)
    batch, rejections = EventDecoder(WARD).decode(records)
    assert not rejections
    assert batch.keys == [b"bed7", b"bed7"]
    start_ms = round(pd.Timestamp(START, tz="UTC").timestamp() * 1000)
    assert (batch.timestamp_ms - start_ms).tolist() == [round(3000 / 360), round(7000 / 360)]
    expected = [np.concatenate([signals[at : at + 4, 0], signals[at : at + 4, 1]]) for at in (0, 4)]
    np.testing.assert_allclose(batch.values, expected, rtol=0, atol=1e-12)


def test_wfdb_schema_is_drafted(tmp_path: Path) -> None:
    """The draft reads the record again, with all its leads, sampled fast."""
    path = make_record(tmp_path, make_signals(2000))
    schema = StreamSchema.from_toml(draft_schema(path))
    assert schema.numeric == ("II", "V5")
    assert (schema.timestamp, schema.timestamp_unit, schema.frame_samples > 1) == ("time", "iso8601", True)
    values = [value for chunk in read_events(path, schema) for value in chunk]
    assert len(values) == 2000 // schema.frame_samples


def test_wfdb_leads_without_or_with_the_same_name_are_told_apart(tmp_path: Path) -> None:
    """No lead hides another one, nor the record and time."""
    path = make_record(tmp_path, make_signals(5))
    assert list(next(read_tables(edit_header(path, (" V5", " II")))).columns) == ["record", "time", "II", "II#2"]
    assert list(next(read_tables(edit_header(path, (" II", " time")))).columns)[2:] == ["time#2", "time#3"]
    assert list(next(read_tables(edit_header(path, (" time", "")))).columns)[2:] == ["signal", "signal#2"]


def test_wfdb_leads_sampled_faster_than_the_record_are_averaged(tmp_path: Path) -> None:
    """All columns have the record's rate."""
    path = make_record(tmp_path, make_signals(8))
    text = path.read_text().replace("bed7 2 360 8", "bed7 1 180 4").splitlines()
    path.write_text("\n".join([text[0], text[1].replace(" 16 ", " 16x2 ", 1).replace("bed7.dat", "one.dat")]) + "\n")
    np.array([2, 4, 6, 8, -2, 0, 100, 300], dtype="<i2").tofile(tmp_path / "one.dat")
    (table,) = read_tables(path)
    assert table["II"].tolist() == [3 / 200, 7 / 200, -1 / 200, 1.0]
    assert table["time"][1] - table["time"][0] == pd.Timedelta(microseconds=5556)


def test_wfdb_without_the_library_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is optional; who needs it is told once, in one sentence."""
    path = make_record(tmp_path, make_signals(5))
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(SettingsError, match=r"wfdb, which is not installed: pip install 'streamlstm\[wfdb\]'$"):
        next(read_tables(path))


def test_wfdb_import_warns_of_nothing_even_where_warnings_are_errors(tmp_path: Path) -> None:
    """The library's own import warns; a user who asked for strictness gets a table all the same."""
    path = make_record(tmp_path, make_signals(5))
    program = (
        "import sys, pathlib; from streamlstm.adapters.files import read_tables; assert 'wfdb' not in sys.modules; "
        f"print(len(next(read_tables(pathlib.Path({str(path)!r})))))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "5"), done.stderr


@pytest.mark.parametrize("damage", ["no header", "empty", "text", "no signals", "no length", "no data", "short data"])
def test_wfdb_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path, damage: str) -> None:
    """A damaged record ends with one sentence, not with half of its samples taken for all."""
    path = make_record(tmp_path, make_signals(100))
    if damage == "no header":
        path.unlink()
    elif damage == "empty":
        path.write_text("")
    elif damage == "text":
        path.write_text("not a header at all\n")
    elif damage == "no signals":
        path.write_text("bed7 0 360 100\n")
    elif damage == "no length":
        edit_header(path, ("bed7 2 360 100 05:06:07 04/03/2021", "bed7 2 360"))
    elif damage == "no data":
        path.with_suffix(".dat").unlink()
    else:
        path.with_suffix(".dat").write_bytes(path.with_suffix(".dat").read_bytes()[:100])
    with pytest.raises(SchemaError, match=r"bed7\.hea: "):
        list(read_tables(path))


@pytest.mark.skipif(not RECORD_100.is_file(), reason=f"MIT-BIH record 100 is not in {DATA}; see STREAMLSTM_DATA")
def test_wfdb_real_record_is_read_in_full() -> None:
    """MIT-BIH record 100: half an hour at 360 Hz, leads MLII and V5, whose first samples are published."""
    first, samples, last_time = None, 0, None
    for table in read_tables(RECORD_100):
        first = table if first is None else first
        samples += len(table)
        last_time = table["time"].iloc[-1]
    assert first is not None
    assert list(first.columns) == ["record", "time", "MLII", "V5"]
    assert first["MLII"][:3].tolist() == pytest.approx([-0.145, -0.145, -0.145])
    assert first["V5"][0] == pytest.approx(-0.065)
    assert samples == 650_000
    assert last_time == pd.Timestamp("2000-01-01") + pd.Timedelta(seconds=649_999 / 360).round("us")
