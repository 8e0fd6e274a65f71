"""Tables and lines on disk become the events that a producer would have sent."""

from __future__ import annotations

import io
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from streamlstm.adapters import files
from streamlstm.adapters.files import read_events, read_records, read_tables
from streamlstm.adapters.schema_files import read_schema
from streamlstm.core.event import EventDecoder
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import SchemaError
from tests.builders import SCHEMA, START_MS

ISO = StreamSchema.from_toml('key = "sensor"\n[features.flow]')
FRAMES = StreamSchema.from_toml(
    """
    key = "sensor"
    timestamp_unit = "s"
    frame_samples = 2
    [features.flow]
    [features.mode]
    kind = "categorical"
    """
)
EVENT = {"sensor": "a", "time": START_MS, "flow": 1.5, "pressure": 2.0}
ROW = f"a,{START_MS},1.5,2\n"
HEADER = "sensor,time,flow,pressure\n"


def make_file(directory: Path, text: str | bytes, name: str = "feed.csv") -> Path:
    """Write a file."""
    path = directory / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def events_of(path: Path, schema: StreamSchema = SCHEMA) -> list[dict[str, Any]]:
    """Return all events of a file, decoded from JSON without the schema."""
    return [msgspec.json.decode(value) for chunk in read_events(path, schema) for value in chunk]


def reasons_of(path: Path, schema: StreamSchema = SCHEMA) -> list[str]:
    """Return why records of a file are rejected."""
    decoder = EventDecoder(schema)
    return [rejection.reason for records in read_records(path, schema) for rejection in decoder.decode(records)[1]]


# CSV


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_with_any_usual_separator_is_read(tmp_path: Path, separator: str) -> None:
    """The separator is found in the header."""
    path = make_file(tmp_path, (HEADER + ROW).replace(",", separator))
    assert events_of(path) == [EVENT]


@pytest.mark.parametrize(
    ("text", "sensor"),
    [
        ('"sensor","time","flow","pressure"\n"pump, left",1600000000000,1.5,2\n', "pump, left"),
        ('"sensor";"time";"flow";"pressure"\n"pump; ""left""";1600000000000;1.5;2\n', 'pump; "left"'),
        ('sensor,time,flow,pressure\n"two\nlines",1600000000000,1.5,2\n', "two\nlines"),
    ],
)
def test_csv_with_quotes_keeps_what_is_inside(tmp_path: Path, text: str, sensor: str) -> None:
    """Separators, quotes and line ends inside quotes belong to the cell."""
    assert events_of(make_file(tmp_path, text)) == [EVENT | {"sensor": sensor}]


@pytest.mark.parametrize("change", [("\n", "\r\n"), ("\n", "\n\n"), ("sensor", "\ufeffsensor")])
def test_csv_of_other_systems_is_read(tmp_path: Path, change: tuple[str, str]) -> None:
    """Windows line ends, blank lines and a byte order mark change nothing."""
    assert events_of(make_file(tmp_path, (HEADER + ROW).replace(*change))) == [EVENT]


def test_csv_with_a_single_column_is_read(tmp_path: Path) -> None:
    """A header without any separator is one column, not a failure to guess."""
    assert [list(table.columns) for table in read_tables(make_file(tmp_path, "flow\n1\n"))] == [["flow"]]


def test_csv_keys_and_categories_stay_text(tmp_path: Path) -> None:
    """A key is a name, even if it looks like a number: no zero is lost, no point appears."""
    path = make_file(tmp_path, HEADER + ROW.replace("a", "007") + ROW.replace("a", "1e3"))
    assert [event["sensor"] for event in events_of(path)] == ["007", "1e3"]


def test_csv_columns_in_other_order_and_unknown_ones_are_no_matter(tmp_path: Path) -> None:
    """Columns are found by name; what the schema does not know is left out."""
    assert events_of(make_file(tmp_path, f"note,pressure,time,sensor,flow\nx,2,{START_MS},a,1.5\n")) == [EVENT]


def test_csv_missing_cell_is_absent_and_becomes_a_dead_letter(tmp_path: Path) -> None:
    """An empty cell is left out of its event, so that the decoder says which field is missing."""
    path = make_file(tmp_path, HEADER + f"a,{START_MS},,2\n,{START_MS},1.5,2\na,,1.5,2\na,{START_MS}\n" + ROW)
    assert events_of(path)[0] == {"sensor": "a", "time": START_MS, "pressure": 2.0}
    assert "sensor" not in events_of(path)[1]
    assert reasons_of(path) == ["invalid"] * 4


@pytest.mark.parametrize("cell", ["hello", "1,5", "inf", "-inf", "1e999", "0x10"])
def test_csv_text_in_a_numeric_column_becomes_a_dead_letter(tmp_path: Path, cell: str) -> None:
    """What is no number goes on as it is, and is refused with its reason, not dropped in silence."""
    path = make_file(tmp_path, HEADER.replace(",", ";") + f"a;{START_MS};{cell};2\n" + ROW.replace(",", ";"))
    assert events_of(path) == [EVENT | {"flow": cell}, EVENT]
    assert reasons_of(path) == ["invalid"]


def test_csv_text_in_the_time_column_becomes_a_dead_letter(tmp_path: Path) -> None:
    """A bad time is refused like any other bad cell."""
    assert reasons_of(make_file(tmp_path, HEADER + ROW + "a,soon,1.5,2\n")) == ["invalid"]


def test_csv_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    """A cell is read as the double that its digits say, and written so that it reads back the same."""
    digits = ["0.1", "1e-308", "123456789.123456789", "-0.30000000000000004", "2.2250738585072014e-308"]
    path = make_file(tmp_path, HEADER + "".join(f"a,{START_MS},{cell},2\n" for cell in digits))
    assert [event["flow"] for event in events_of(path)] == [float(cell) for cell in digits]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a table"),
        (HEADER + ROW + "a,1,2,3,4,5\n", "not a table.*line 3"),
        (HEADER + ROW.replace("\n", ",\n"), "not a table: rows have more cells than the header has names"),
        (HEADER + f"1,{ROW}2,{ROW}", "not a table: rows have more cells than the header has names"),
        (HEADER + '"a,1,2,3\n', "not a table"),
        ((HEADER + ROW).encode("utf-16"), "not a table.*utf-8"),
        (HEADER.encode() + "größe,1,2,3\n".encode("latin-1"), "not a table.*utf-8"),
    ],
)
def test_csv_that_is_no_table_is_refused_with_its_name(tmp_path: Path, text: str | bytes, message: str) -> None:
    """A file that cannot be read for sure is refused; its columns are never shifted or guessed."""
    with pytest.raises(SchemaError, match=rf"feed\.csv: {message}"):
        events_of(make_file(tmp_path, text))


def test_csv_with_a_header_only_has_no_events(tmp_path: Path) -> None:
    """An empty table is no error here; who needs events says so."""
    assert events_of(make_file(tmp_path, HEADER)) == []


@pytest.mark.parametrize("name", ["feed.csv", "feed.parquet"])
def test_table_without_columns_of_the_schema_names_file_and_columns(tmp_path: Path, name: str) -> None:
    """The message tells what is asked for and what is there."""
    path = tmp_path / name
    table = pd.DataFrame({"sensor": ["a"], "zeit": ["2020-01-01"], "druck": [1.0]})
    table.to_csv(path, index=False) if name == "feed.csv" else table.to_parquet(path)
    with pytest.raises(
        SchemaError, match=rf"{name}: the schema asks for 'time', 'flow', 'pressure'; .* 'sensor', 'zeit', 'druck'"
    ):
        events_of(path)


def test_table_without_an_optional_column_is_read(tmp_path: Path) -> None:
    """A feature that may be missing in an event may be missing in all of them."""
    schema = StreamSchema.from_toml("[features.flow]\n[features.extra]\noptional = true")
    path = make_file(tmp_path, "time,flow\n2020-01-01,1\n")
    assert events_of(path, schema) == [{"time": "2020-01-01", "flow": 1.0}]
    assert reasons_of(path, schema) == []


@pytest.mark.parametrize("name", ["gone.csv", "gone.parquet", "gone.jsonl"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """Every kind of file that is not there ends with the same sentence."""
    with pytest.raises(SchemaError, match=rf"{name}: there is no such file"):
        events_of(tmp_path / name)


def test_standard_input_is_read_as_csv(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash stands for standard input, for pipes."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(HEADER + ROW))
    assert events_of(Path("-")) == [EVENT]


def test_standard_input_that_is_empty_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says where nothing came from."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(SchemaError, match="standard input: not a table"):
        events_of(Path("-"))


def test_records_are_numbered_through_all_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets count the events of the file, whatever the chunks it is read in."""
    monkeypatch.setattr(files, "CHUNK_ROWS", 2)
    path = make_file(tmp_path, HEADER + ROW * 5)
    chunks = list(read_records(path, SCHEMA))
    assert [[record.offset for record in chunk] for chunk in chunks] == [[0, 1], [2, 3], [4]]
    assert {(record.topic, record.partition, record.key) for chunk in chunks for record in chunk} == {
        ("feed.csv", 0, None)
    }
    assert reasons_of(path) == [], "files are read whenever, so that no event lies in the future"


# Parquet


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("s", 1_600_000_000.123),
        ("ms", 1_600_000_000_123),
        ("us", 1_600_000_000_123_000),
        ("iso8601", "2020-09-13T12:26:40.123000+00:00"),
    ],
)
@pytest.mark.parametrize("precision", ["ms", "us", "ns"])
def test_parquet_times_are_given_in_the_unit_of_the_schema(
    tmp_path: Path, unit: str, expected: object, precision: str
) -> None:
    """A column of moments fits every schema; a moment is read the same from every precision."""
    schema = StreamSchema.from_toml(f'timestamp_unit = "{unit}"\n[features.flow]')
    times = pd.Series([datetime(2020, 9, 13, 12, 26, 40, 123_000, UTC)]).dt.as_unit(precision)
    for column in (times, times.dt.tz_localize(None), times.dt.tz_convert("Asia/Tokyo")):
        pd.DataFrame({"time": column, "flow": [1.5]}).to_parquet(tmp_path / "feed.parquet")
        assert events_of(tmp_path / "feed.parquet", schema) == [{"time": expected, "flow": 1.5}]
        assert reasons_of(tmp_path / "feed.parquet", schema) == []


def test_parquet_columns_of_any_type_become_numbers_and_names(tmp_path: Path) -> None:
    """Integers, small floats, decimals and booleans are numbers; a key may be a number too."""
    table = pa.table(
        {
            "sensor": pa.array([7, 8], pa.int16()),
            "time": pa.array([START_MS, START_MS], pa.int64()),
            "flow": pa.array([Decimal("1.5"), None], pa.decimal128(5, 2)),
            "pressure": pa.array([True, False]),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "feed.parquet")
    assert events_of(tmp_path / "feed.parquet") == [
        {"sensor": 7, "time": START_MS, "flow": 1.5, "pressure": 1.0},
        {"sensor": 8, "time": START_MS, "pressure": 0.0},
    ]


def test_parquet_with_one_missing_key_spoils_only_that_row(tmp_path: Path) -> None:
    """Keys that are integers stay integers beside a missing one."""
    columns = {"sensor": [7, None], "time": [START_MS] * 2, "flow": [1, None], "pressure": [2, 2]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "feed.parquet")
    assert events_of(tmp_path / "feed.parquet")[0]["sensor"] == 7
    assert reasons_of(tmp_path / "feed.parquet") == ["invalid"]


def test_parquet_missing_and_odd_cells_become_dead_letters(tmp_path: Path) -> None:
    """Missing times and infinite numbers are refused one by one."""
    table = pd.DataFrame(
        {
            "sensor": ["a", "b", "c", None],
            "time": pd.to_datetime(["2020-01-01", None, "2020-01-01", "2020-01-01"]),
            "flow": [1.0, 1.0, float("inf"), 1.0],
        }
    )
    table.to_parquet(tmp_path / "feed.parquet")
    assert events_of(tmp_path / "feed.parquet", ISO)[0] == {
        "sensor": "a",
        "time": "2020-01-01T00:00:00+00:00",
        "flow": 1.0,
    }
    assert reasons_of(tmp_path / "feed.parquet", ISO) == ["invalid"] * 3


def test_parquet_dates_are_read_as_midnight(tmp_path: Path) -> None:
    """Daily data often has dates without a time."""
    pyarrow.parquet.write_table(
        pa.table({"sensor": ["a"], "time": [date(2020, 1, 2)], "flow": [1.0]}), tmp_path / "feed.parquet"
    )
    batch, rejections = EventDecoder(ISO).decode(next(read_records(tmp_path / "feed.parquet", ISO)))
    assert not rejections
    assert datetime.fromtimestamp(batch.timestamp_ms[0] / 1000, UTC).isoformat() == "2020-01-02T00:00:00+00:00"


def test_parquet_gives_the_same_events_as_csv(tmp_path: Path) -> None:
    """The kind of file does not matter to the scores."""
    table = pd.DataFrame(
        {"sensor": ["a", "b"], "time": [START_MS, START_MS + 1], "flow": [0.1, None], "pressure": [1e-9, 3.0]}
    )
    table.to_csv(tmp_path / "feed.csv", index=False)
    table.to_parquet(tmp_path / "feed.parquet")
    csv, parquet = (list(read_events(tmp_path / name, SCHEMA)) for name in ("feed.csv", "feed.parquet"))
    assert csv == parquet


def test_parquet_that_is_none_is_refused_with_its_name(tmp_path: Path) -> None:
    """A damaged file ends with a sentence."""
    with pytest.raises(SchemaError, match=r"feed\.parquet: not a Parquet file"):
        events_of(make_file(tmp_path, b"PAR1 and no more", "feed.parquet"))


# JSON lines


@pytest.mark.parametrize("name", ["feed.jsonl", "feed.ndjson"])
def test_json_lines_pass_through_untouched(tmp_path: Path, name: str) -> None:
    """Lines are events already; only line ends and empty lines are taken away, nothing is checked."""
    path = make_file(tmp_path, b'{"a": 1}\r\n\n{no json\xff \n{"b":  2}', name)
    assert list(read_events(path, SCHEMA)) == [[b'{"a": 1}', b"{no json\xff ", b'{"b":  2}']]


def test_json_lines_are_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long file is not held in memory, and no line between two chunks is lost."""
    monkeypatch.setattr(files, "CHUNK_ROWS", 2)
    path = make_file(tmp_path, b"1\n2\n3\n4\n5\n", "feed.jsonl")
    assert list(read_events(path, SCHEMA)) == [[b"1", b"2"], [b"3", b"4"], [b"5"]]


# Frames


def make_rows(*rows: tuple[str, int, object]) -> str:
    """Return a CSV of sensor, seconds and flow; the mode is named after the second."""
    lines = [f"{sensor},{START_MS // 1000 + second},{flow},m{second}" for sensor, second, flow in rows]
    return "\n".join(["sensor,time,flow,mode", *lines]) + "\n"


def make_frame(sensor: str, second: int, *flow: object) -> dict[str, object]:
    """Return the event that rows of :func:`make_rows` ending at ``second`` make."""
    return {"sensor": sensor, "time": START_MS / 1000 + second, "mode": f"m{second}", "flow": list(flow)}


def test_frames_join_consecutive_rows_of_a_key(tmp_path: Path) -> None:
    """A frame has the samples in order; time and categories are those of its last row."""
    path = make_file(tmp_path, make_rows(("a", 1, 1.5), ("a", 2, 2.5), ("a", 3, 3.5), ("a", 4, 4.5)))
    assert events_of(path, FRAMES) == [make_frame("a", 2, 1.5, 2.5), make_frame("a", 4, 3.5, 4.5)]
    assert reasons_of(path, FRAMES) == []


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 4, 5, 100])
def test_frames_of_interleaved_keys_do_not_depend_on_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_rows: int
) -> None:
    """Keys are framed apart, events stand where their last row stood, and frames cross chunks."""
    monkeypatch.setattr(files, "CHUNK_ROWS", chunk_rows)
    path = make_file(
        tmp_path,
        make_rows(
            ("a", 1, 1.0), ("b", 2, 2.0), ("b", 3, 3.0), ("a", 4, 4.0), ("c", 5, 5.0), ("a", 6, 6.0), ("b", 7, 7.0),
            ("a", 8, 8.0),
        ),
    )  # fmt: skip
    assert events_of(path, FRAMES) == [
        make_frame("b", 3, 2.0, 3.0),
        make_frame("a", 4, 1.0, 4.0),
        make_frame("a", 8, 6.0, 8.0),
    ], "the last rows of b and c make no whole frame"


def test_frames_without_a_key_join_all_rows(tmp_path: Path) -> None:
    """A stream without keys is one series."""
    schema = StreamSchema.from_toml("frame_samples = 2\n[features.flow]")
    path = make_file(tmp_path, "time,flow\n2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n")
    assert events_of(path, schema) == [{"time": "2020-01-02", "flow": [1.0, 2.0]}]


def test_frames_with_a_bad_sample_become_dead_letters(tmp_path: Path) -> None:
    """One odd sample refuses its frame, and only that one."""
    path = make_file(
        tmp_path, make_rows(("a", 1, "x"), ("a", 2, 2.0), ("a", 3, ""), ("a", 4, 4.0), *[("a", 5, 5.0)] * 2)
    )
    assert [event["flow"] for event in events_of(path, FRAMES)] == [["x", 2.0], [None, 4.0], [5.0, 5.0]]
    assert reasons_of(path, FRAMES) == ["invalid", "invalid"]


def test_frames_of_rows_without_a_key_become_dead_letters(tmp_path: Path) -> None:
    """Rows whose key is missing are refused like single events, not kept back for ever."""
    path = make_file(tmp_path, make_rows(("", 1, 1.0), ("a", 2, 2.0), ("", 3, 3.0), ("a", 4, 4.0)))
    assert reasons_of(path, FRAMES) == ["invalid"]
    assert len(events_of(path, FRAMES)) == 2


# Stream schema


def test_schema_is_read_from_its_file(tmp_path: Path) -> None:
    """A schema file is the text of a schema."""
    assert read_schema(make_file(tmp_path, "[features.flow]", "stream.toml")).numeric == ("flow",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no such file"),
        ("[features", "not TOML"),
        (b"\xff = 1", "not TOML"),
        ("x = 1", "unknown field"),
        ("[features.'so \"called\"']", "must not hold quotes"),
    ],
)
def test_schema_that_cannot_be_read_is_named(tmp_path: Path, text: str | bytes | None, message: str) -> None:
    """The message tells which file, and what is wrong with it."""
    path = tmp_path / "stream.toml" if text is None else make_file(tmp_path, text, "stream.toml")
    with pytest.raises(SchemaError, match=rf"stream\.toml: .*{message}"):
        read_schema(path)
