"""Tables and lines on disk → records, as a producer would have sent them.

CSV (any of ``, ; tab |``), Parquet, JSON lines, WFDB records (by their ``.hea``), and a CSV on standard
input. Rows become JSON events of the stream's schema; with frames, ``frame_samples`` consecutive rows of
a key become one event with the time of the last. A cell that is no number stays as it is, so that the
decoder refuses it with its reason instead of silence here.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import msgspec
import numpy as np
import pandas as pd
import pyarrow.parquet
from pandas.api import types

from streamlstm.adapters.schema_files import check_there
from streamlstm.adapters.wfdb_files import read_wfdb
from streamlstm.core.event import LATEST_MS
from streamlstm.core.log import Record
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import SchemaError

CHUNK_ROWS = 50_000
STDIN = Path("-")
LINES = (".jsonl", ".ndjson")
MISSING_NUMBERS = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None")  # in a key or category they are names

OnShare = Callable[[float], None]


def _unheard(_share: float) -> None:
    """Do nothing with the share of the file that was read."""


def read_events(
    path: Path, schema: StreamSchema, *, rows: int | None = None, on_share: OnShare = _unheard
) -> Iterator[list[bytes]]:
    """Yield the file's events as JSON, chunk by chunk, in the order of the file.

    A chunk is made of ``rows`` of the file. ``on_share`` is told, before each chunk, the share of the file
    (0 to 1) that has been read with it; never for standard input, whose end is not known.

    An incomplete frame at the end of a key is left out. Raises :class:`SchemaError` naming the file
    and the columns that the schema asks for and the file lacks.
    """
    if path.suffix in LINES:
        check_there(path)
        yield from _line_chunks(path, rows or CHUNK_ROWS, on_share)
        return
    frames = _Frames(schema)
    for table in read_tables(path, rows=rows, on_share=on_share):
        _check_columns(table, schema, path)
        yield frames.events(table)


def read_records(path: Path, schema: StreamSchema) -> Iterator[list[Record]]:
    """Yield the file's events as records of one partition, numbered from 0."""
    offset = 0
    for values in read_events(path, schema):
        yield [Record(path.name, 0, offset + i, LATEST_MS, None, value) for i, value in enumerate(values)]
        offset += len(values)


def read_tables(path: Path, *, rows: int | None = None, on_share: OnShare = _unheard) -> Iterator[pd.DataFrame]:
    """Yield a file's rows as tables; CSV cells are strings. For the options, see :func:`read_events`."""
    rows = rows or CHUNK_ROWS
    if path == STDIN:
        if sys.stdin is None:
            raise SchemaError("standard input is closed")
        yield from _read_csv(sys.stdin, "standard input", rows, ",")
        return
    check_there(path)
    for table, share in _read_shares(path, rows):
        on_share(share)
        yield table


def read_first_rows(path: Path) -> pd.DataFrame:
    """Return the first rows of any file that :func:`read_events` reads; cells of JSON lines are JSON's values.

    Lines that are no JSON object are left out.
    """
    if path.suffix not in LINES:
        return next(read_tables(path), pd.DataFrame())
    check_there(path)
    lines = next(_line_chunks(path, CHUNK_ROWS, _unheard), [])
    return pd.DataFrame([row for line in lines if (row := _json_object(line)) is not None], dtype=object)


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _read_shares(path: Path, rows: int) -> Iterator[tuple[pd.DataFrame, float]]:
    """Yield a file's tables, each with the share of the file that has been read with it."""
    if path.suffix in LINES:
        raise SchemaError(f"{path}: JSON lines are no table: give CSV, Parquet or WFDB (.hea)")
    if path.suffix == ".parquet":
        yield from _read_parquet(path, rows)
        return
    if path.suffix == ".hea":
        yield from read_wfdb(path, rows)
        return
    with path.open("rb") as file, io.TextIOWrapper(file, newline="", encoding="utf-8") as lines:
        for table in _read_csv(lines, str(path), rows):
            yield table, _share(file)


def _share(file: BinaryIO) -> float:
    return file.tell() / max(os.fstat(file.fileno()).st_size, 1)


def _read_parquet(path: Path, rows: int) -> Iterator[tuple[pd.DataFrame, float]]:
    done = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(rows):
                done += batch.num_rows
                table = batch.to_pandas(integer_object_nulls=True)  # else one missing key makes floats of all
                yield table, done / file.metadata.num_rows
    except pyarrow.ArrowException as error:
        raise SchemaError(f"{path}: not a Parquet file: {error}") from error


def _read_csv(lines: IO[str], name: str, rows: int, separator: str | None = None) -> Iterator[pd.DataFrame]:
    try:
        separator = separator or _separator(lines)
        for table in pd.read_csv(
            lines, sep=separator, dtype=str, chunksize=rows, keep_default_na=False, na_values=[""]
        ):
            if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first column for row names
                raise SchemaError(f"{name}: not a table: rows have more cells than the header has names")
            yield table
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise SchemaError(f"{name}: not a table: {str(error).strip()}") from error


def _separator(lines: IO[str]) -> str:
    header = lines.readline()
    lines.seek(0)
    try:
        return csv.Sniffer().sniff(header, delimiters=",;\t|").delimiter
    except csv.Error:  # a single column
        return ","


def _line_chunks(path: Path, rows: int, on_share: OnShare) -> Iterator[list[bytes]]:
    with path.open("rb") as lines:
        while chunk := [line.rstrip(b"\r\n") for _, line in zip(range(rows), lines, strict=False)]:
            on_share(_share(lines))
            yield [line for line in chunk if line]


def _check_columns(table: pd.DataFrame, schema: StreamSchema, path: Path) -> None:
    wanted = [schema.timestamp, *schema.features] + ([schema.key] if schema.key else [])
    required = [name for name in wanted if not (name in schema.features and schema.features[name].optional)]
    missing = [name for name in required if name not in table.columns]
    if missing:
        raise SchemaError(
            f"{path}: the schema asks for {', '.join(map(repr, missing))}; the file has "
            f"{', '.join(map(repr, table.columns))}"
        )


class _Frames:
    """Turns tables into events; keeps each key's rows that do not fill a frame yet."""

    def __init__(self, schema: StreamSchema) -> None:
        self._schema = schema
        self._left: pd.DataFrame | None = None

    def events(self, table: pd.DataFrame) -> list[bytes]:
        schema = self._schema
        columns = {name: _cells(table[name], schema, name) for name in self._columns(table)}
        if schema.frame_samples == 1:
            return [msgspec.json.encode(_without_missing(columns, row)) for row in zip(*columns.values(), strict=True)]
        cells = pd.DataFrame(columns, dtype=object)
        if self._left is not None:
            cells = pd.concat([self._left, cells], ignore_index=True)
        return self._framed(cells)

    def _columns(self, table: pd.DataFrame) -> list[str]:
        wanted = ([self._schema.key] if self._schema.key else []) + [self._schema.timestamp, *self._schema.features]
        return [name for name in wanted if name in table.columns]

    def _framed(self, cells: pd.DataFrame) -> list[bytes]:
        """Join each key's consecutive rows to frames; events stand where their last row stood."""
        schema, samples = self._schema, self._schema.frame_samples
        groups = (
            cells.groupby(schema.key, sort=False, dropna=False).indices.values()
            if schema.key
            else [np.arange(len(cells))]
        )
        whole = [np.asarray(at)[: len(at) // samples * samples].reshape(-1, samples) for at in groups]
        at = np.concatenate(whole) if whole else np.empty((0, samples), dtype=int)
        at = at[np.argsort(at[:, -1], kind="stable")]
        self._left = cells.drop(index=pd.Index(at.ravel()))
        sampled = {name: cells[name].to_numpy()[at] for name in schema.numeric if name in cells}
        single = {name: cells[name].to_numpy()[at[:, -1]] for name in cells.columns if name not in sampled}
        return [
            msgspec.json.encode(
                {name: column[i] for name, column in single.items() if column[i] is not None}
                | {name: column[i].tolist() for name, column in sampled.items()}
            )
            for i in range(len(at))
        ]


def _without_missing(columns: dict[str, list[Any]], row: tuple[Any, ...]) -> dict[str, Any]:
    return {name: cell for name, cell in zip(columns, row, strict=True) if cell is not None}


def _cells(column: pd.Series[Any], schema: StreamSchema, name: str) -> list[Any]:
    """Return a column's cells as JSON values: None where empty."""
    if types.is_datetime64_any_dtype(column):
        column = _in_unit(column, schema.timestamp_unit)
    elif name in schema.numeric or (name == schema.timestamp and schema.timestamp_unit != "iso8601"):
        column = column.mask(column.isin(MISSING_NUMBERS))
        numbers = pd.to_numeric(column, errors="coerce").astype(float)
        odd = (numbers.isna() & column.notna()) | np.isinf(numbers)
        return [
            str(cell) if strange else None if np.isnan(number) else number
            for number, strange, cell in zip(numbers.tolist(), odd.tolist(), column.tolist(), strict=True)
        ]
    return [None if pd.isna(cell) else cell if isinstance(cell, float | int) else str(cell) for cell in column.tolist()]


def _in_unit(column: pd.Series[Any], unit: str) -> pd.Series[Any]:
    """Return times as the schema's unit: ISO strings, or numbers since 1970."""
    moments = pd.to_datetime(column, utc=True)
    if unit == "iso8601":
        return moments.map(lambda moment: moment.isoformat())
    micros = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(microseconds=1)
    return micros / {"s": 1e6, "ms": 1e3, "us": 1.0}[unit]
