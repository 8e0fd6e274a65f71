"""A drafted schema: where time, key and features sit in tables like those people have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import structlog

from streamlstm.adapters.files import read_records
from streamlstm.core.event import EventDecoder
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import SchemaError
from streamlstm.services.schema_drafter import draft_schema

ROWS = 240


def make_times(gap_s: float = 60.0, rows: int = ROWS) -> pd.DatetimeIndex:
    """Return regular times, to the microsecond."""
    steps = pd.to_timedelta(np.round(np.arange(rows) * gap_s * 1e6), unit="us")
    return (pd.Timestamp("2021-03-01", tz="UTC") + steps).as_unit("us")


def make_table(**columns: object) -> pd.DataFrame:
    """Return a table with times, a column of numbers, and others instead or beside them."""
    flow = np.random.default_rng(0).normal(10.0, 1.0, ROWS)
    return pd.DataFrame({"time": make_times().strftime("%Y-%m-%dT%H:%M:%SZ"), "flow": flow} | columns)


def draft(table: pd.DataFrame, directory: Path, name: str = "history.csv") -> tuple[StreamSchema, str]:
    """Write the table, and return its drafted schema, parsed and as text; all its events must decode."""
    path = directory / name
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
    text = draft_schema(path)
    schema = StreamSchema.from_toml(text)
    for records in read_records(path, schema):
        assert EventDecoder(schema).decode(records)[1] == []
    return schema, text


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 1_000), ("us", 1_000_000)])
@pytest.mark.parametrize("name", ["ts", "clock"])
def test_draft_finds_the_unit_of_times_that_are_numbers(tmp_path: Path, unit: str, per_second: int, name: str) -> None:
    """Seconds, milliseconds and microseconds since 1970 are told apart by their size, whatever the name."""
    seconds = make_times().as_unit("s").astype("int64")
    schema, text = draft(make_table(**{name: seconds * per_second}).drop(columns="time"), tmp_path)
    assert (schema.timestamp, schema.timestamp_unit) == (name, unit)
    assert "A row every 60 s per key" in text


@pytest.mark.parametrize(
    "pattern", ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f+02:00", "%Y-%m-%d"]
)
def test_draft_finds_times_that_are_text(tmp_path: Path, pattern: str) -> None:
    """ISO 8601 in its usual forms."""
    schema, _ = draft(make_table(time=make_times(86_400.0).strftime(pattern)), tmp_path)
    assert (schema.timestamp, schema.timestamp_unit) == ("time", "iso8601")


def test_draft_finds_times_of_a_parquet_file(tmp_path: Path) -> None:
    """A column of moments is a time, and needs no name."""
    schema, _ = draft(make_table(moment=make_times()).drop(columns="time"), tmp_path, "history.parquet")
    assert (schema.timestamp, schema.timestamp_unit) == ("moment", "iso8601")


def test_draft_prefers_a_time_with_a_telling_name(tmp_path: Path) -> None:
    """Of several times, the one that is called so."""
    table = make_table()
    table.insert(0, "installed", "2019-01-01")
    assert draft(table, tmp_path)[0].timestamp == "time"


@pytest.mark.parametrize("pattern", ["%Y-%m-%dT%H:%M:%SZ", "%s"])
def test_draft_of_a_table_without_a_header_is_refused(tmp_path: Path, pattern: str) -> None:
    """Its first event would be taken for names, of which a feature called 10.2 is no use to anybody."""
    path = tmp_path / "history.csv"
    make_table(time=make_times().strftime(pattern)).to_csv(path, index=False, header=False)
    with pytest.raises(
        SchemaError, match=r"history\.csv: the first line is data, such as '.*put a line of names first"
    ):
        draft_schema(path)


def test_draft_reads_no_time_into_other_numbers(tmp_path: Path) -> None:
    """Small numbers, and nanoseconds, which no schema has, are no times."""
    for times in (np.arange(ROWS), make_times().as_unit("ns").astype("int64")):
        path = tmp_path / "history.csv"
        make_table(time=times).to_csv(path, index=False)
        with pytest.raises(SchemaError, match=r"history\.csv: no column reads as time; the columns are 'time', 'flow'"):
            draft_schema(path)


@pytest.mark.parametrize("name", ["sensor", "machine_id", "Device", "id", "card-key"])
def test_draft_finds_the_key(tmp_path: Path, name: str) -> None:
    """A column with a telling name and few values says whose event it is."""
    schema, text = draft(make_table(**{name: [f"p{i % 4}" for i in range(ROWS)]}), tmp_path)
    assert schema.key == name
    assert name not in schema.features
    assert "A row every 240 s per key" in text


def test_draft_takes_no_identifier_of_rows_for_a_key(tmp_path: Path) -> None:
    """A value that never comes twice has no history of its own; it is no feature either."""
    schema, text = draft(make_table(id=[f"row-{i}" for i in range(ROWS)]), tmp_path)
    assert (schema.key, set(schema.features)) == (None, {"flow"})
    assert '# key = "..."' in text


@pytest.mark.parametrize(
    ("name", "column", "reason"),
    [
        ("anomaly", [0, 1] * (ROWS // 2), "looks like a label"),
        ("is_fraud", ["no", "yes"] * (ROWS // 2), "looks like a label"),
        ("constant", [7.0] * ROWS, "never changes"),
        ("empty", [None] * ROWS, "never changes"),
        ("comment", [f"note {i}" for i in range(ROWS)], "hardly a value twice"),
    ],
)
def test_draft_leaves_out_what_must_not_be_an_input(
    tmp_path: Path, name: str, column: list[object], reason: str
) -> None:
    """Labels, constants and free text stay in the draft as comments, with the reason."""
    schema, text = draft(make_table(**{name: column}), tmp_path)
    assert set(schema.features) == {"flow"}
    assert f"# Left out: {reason}" in text
    assert f'# [features."{name}"]' in text


def test_draft_tells_numbers_from_categories(tmp_path: Path) -> None:
    """Text with few values is a category; a number with gaps is optional."""
    pressure = [None if i % 10 == 0 else float(i % 7) for i in range(ROWS)]
    schema, text = draft(make_table(mode=["idle", "busy"] * (ROWS // 2), pressure=pressure), tmp_path)
    assert schema.categorical == ("mode",)
    assert schema.numeric == ("flow", "pressure")
    assert [schema.features[name].optional for name in ("flow", "pressure", "mode")] == [False, True, False]
    assert "missing in 10.0% of the rows" in text


def test_draft_quotes_odd_column_names(tmp_path: Path) -> None:
    """Names come back from TOML as they stood in the header; those that no decoder can find are left out."""
    odd = ["dots.and spaces", "größe (°C)", "it's", "[x]", "#", "a = b"]
    impossible = ['a "quoted" name', "tab\tand\nline", "back\\slash"]
    columns = {name: np.arange(ROWS) % 9 for name in odd + impossible}
    schema, text = draft(make_table(**columns), tmp_path)
    assert set(schema.features) == {"flow", *odd}
    assert text.count("# Left out: its name holds quotes") == len(impossible)


@pytest.mark.parametrize(("rate_hz", "samples"), [(10, 1), (20, 1), (50, 4), (128, 8), (360, 16), (25_000, 32)])
def test_draft_frames_what_is_sampled_fast(tmp_path: Path, rate_hz: int, samples: int) -> None:
    """An event lasts about a sixteenth of a second, and has 32 samples at most."""
    times = make_times(1 / rate_hz).as_unit("us").astype("int64")
    path = tmp_path / "history.csv"
    make_table(time=times).to_csv(path, index=False)
    assert StreamSchema.from_toml(draft_schema(path)).frame_samples == samples


def test_draft_measures_the_gap_within_a_key(tmp_path: Path) -> None:
    """Many slow keys are not one fast one."""
    times = make_times(0.01).as_unit("us").astype("int64")
    schema, _ = draft(make_table(time=times, sensor=[f"s{i % 10}" for i in range(ROWS)]), tmp_path)
    assert schema.frame_samples == 1


def test_draft_leaves_the_calendar_to_the_training(tmp_path: Path) -> None:
    """It finds out whether hour and weekday help; the draft says how to set it by hand."""
    schema, text = draft(make_table(), tmp_path)
    assert schema.calendar is None
    assert "# calendar = true" in text


def test_draft_bears_a_few_bad_times(tmp_path: Path) -> None:
    """Rows whose time is missing or garbled do not stretch the history."""
    times = [None, "garbled", *make_times().strftime("%Y-%m-%d %H:%M:%S")[2:]]
    path = tmp_path / "history.csv"
    make_table(time=times).to_csv(path, index=False)
    text = draft_schema(path)
    assert "A row every 60 s per key, over 0.2 days" in text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (make_table(flow="x"), "no column of numbers was found among 'flow'"),
        (make_table(flow=1.0), "no column of numbers was found among 'flow'"),
        (make_table(flow=1.0, numeric=["x", "y"] * (ROWS // 2)), "no column of numbers was found"),
        (make_table()[:0], "the file has no rows"),
    ],
)
def test_draft_of_a_table_without_numbers_is_refused(tmp_path: Path, table: pd.DataFrame, message: str) -> None:
    """Without anything to forecast there is no schema, rather than one that is refused later."""
    table.to_csv(tmp_path / "history.csv", index=False)
    with pytest.raises(SchemaError, match=rf"history\.csv: {message}"):
        draft_schema(tmp_path / "history.csv")


def make_pumps(name: str = "pump", *, sort_by: str = "time", other: str = "mode") -> pd.DataFrame:
    """Return three pumps that send at the same times, with a category that does not tell them apart."""
    times = make_times(rows=ROWS // 3).strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = [
        (time, f"P{p}", "idle" if i % 7 else "busy", p + i % 5 / 4) for i, time in enumerate(times) for p in range(3)
    ]
    table = pd.DataFrame(rows, columns=["time", name, other, "flow"])
    return table.sort_values([name, "time"]) if sort_by == "key" else table


@pytest.mark.parametrize("name", ["pump", "key", "strang"])
@pytest.mark.parametrize("sort_by", ["time", "key"])
def test_draft_finds_the_key_that_puts_times_in_order(tmp_path: Path, name: str, sort_by: str) -> None:
    """Whatever it is called, and says by what it was known."""
    with structlog.testing.capture_logs() as logs:
        schema, text = draft(make_pumps(name, sort_by=sort_by), tmp_path)
    assert schema.key == name
    assert set(schema.features) == {"mode", "flow"}
    assert "rows repeat a time or go back without it, 0 with it" in text
    assert [(log["event"], log["key"]) for log in logs] == [("drafted", name)]
    assert "3 values; " in logs[0]["why"]


def test_draft_prefers_a_key_that_is_called_so_among_those_that_put_times_in_order(tmp_path: Path) -> None:
    """A model number goes with its pump, but is not its name; a coarser column does not put times in order."""
    table = make_pumps()
    table.insert(1, "fabric", table["pump"].map({"P0": "x", "P1": "y", "P2": "z"}))
    table.insert(1, "node", "north")
    assert draft(table, tmp_path)[0].key == "pump"


def test_draft_takes_no_measurement_for_a_key(tmp_path: Path) -> None:
    """Though it has few values, and its name begins as a key's."""
    schema, _ = draft(
        make_table(sensor_a=[0.5 * (i % 3) for i in range(ROWS)], id=[i % 3 / 2 for i in range(ROWS)]), tmp_path
    )
    assert schema.key is None
    assert {"sensor_a", "id"} <= set(schema.features)


@pytest.mark.parametrize("key", [None, "site_id"])
def test_draft_warns_of_times_that_still_repeat(tmp_path: Path, key: str | None) -> None:
    """In the draft and on standard error: how many, which for example, and what to do."""
    table = make_pumps().drop(columns="pump")
    if key:
        table[key] = "north"
    with structlog.testing.capture_logs() as logs:
        schema, text = draft(table, tmp_path)
    found = "160 of 240 rows repeat a time of their key or go back, such as 2021-03-01T00:00:00"
    assert f"# Warning: {found}" in text
    assert schema.key == key
    (warning,) = [log for log in logs if log["log_level"] == "warning"]
    assert warning["rows"].startswith(found)
    assert "Name the column" in warning["advice"]


def test_draft_bears_a_few_times_that_repeat(tmp_path: Path) -> None:
    """As when a sender tries again: neither a warning nor a search for a key."""
    table = make_table(mode=["idle", "busy"] * (ROWS // 2))
    table["time"] = table["time"].where(table.index != 100, table["time"].shift())
    schema, text = draft(table, tmp_path)
    assert schema.key is None
    assert "Warning" not in text


def write_lines(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows as JSON lines, and among them what no stream is without."""
    path.write_text("\n".join(["{cut off", "[]", *map(json.dumps, rows)]))
    return path


def test_draft_reads_json_lines(tmp_path: Path) -> None:
    """A number is one, a text or a truth is a category, and what no feature can be is left out; all events decode."""
    rows = [
        {
            "t": 1.6e9 + i // 2,
            "pump": f"P{i % 2}",
            "flow": i % 9 / 2,
            "on": i % 3 == 0,
            "code": str(i % 4),
            "at": {"x": i},
        }
        for i in range(ROWS)
    ]
    path = write_lines(tmp_path / "history.jsonl", rows)
    text = draft_schema(path)
    schema = StreamSchema.from_toml(text)
    assert (schema.key, schema.timestamp, schema.timestamp_unit, schema.frame_samples) == ("pump", "t", "s", 1)
    assert (schema.numeric, schema.categorical) == (("flow",), ("on", "code"))
    assert "# Left out: an object within the event" in text
    (records,) = read_records(path, schema)
    assert len(EventDecoder(schema).decode(records)[0]) == ROWS


def test_draft_of_json_lines_takes_lists_for_frames(tmp_path: Path) -> None:
    """They are as long as they are; a single number beside them can be no feature, and a short list neither."""
    rows = [
        {"time": 1_600_000_000_000 + 66 * i, "ecg": [i % 5, 1, 2, 3], "bpm": 60 + i % 9, "odd": [1] * (i % 3)}
        for i in range(ROWS)
    ]
    path = write_lines(tmp_path / "history.ndjson", rows)
    text = draft_schema(path)
    schema = StreamSchema.from_toml(text)
    assert (schema.frame_samples, schema.numeric) == (4, ("ecg",))
    assert "# Left out: one number, where others have 4 samples" in text
    assert "# Left out: not always a list of 4 samples" in text
    (records,) = read_records(path, schema)
    assert len(EventDecoder(schema).decode(records)[0]) == ROWS


def test_draft_of_json_lines_without_events_is_refused(tmp_path: Path) -> None:
    """One sentence, as of a table without rows."""
    with pytest.raises(SchemaError, match="the file has no rows"):
        draft_schema(write_lines(tmp_path / "history.jsonl", []))
