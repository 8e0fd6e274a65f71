"""A labelled file of one's own as a task: labels as a column of it, or as ranges of time in another file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from streamlstm.adapters.files import read_records, read_tables
from streamlstm.adapters.schema_files import read_schema
from streamlstm.core.event import EventDecoder
from streamlstm.core.log import Record
from streamlstm.core.schema import Feature, StreamSchema
from streamlstm.errors import SchemaError, SettingsError
from streamlstm.evaluation.task import Task

BOUNDS = ("start", "end")


def read_task(stream: Path, history: Sequence[Path], test: Path, labels: Path | None, label_column: str | None) -> Task:
    """Read a task; raises :class:`SettingsError` or :class:`SchemaError` that names what is missing."""
    if (labels is None) == (label_column is None):
        raise SettingsError("give either --labels FILE (columns start, end and, if wanted, key) or --label-column NAME")
    schema = read_schema(stream)
    before = [record for path in history for records in read_records(path, schema) for record in records]
    if label_column is not None:
        records, label = _with_column(test, schema, label_column)
    else:
        assert labels is not None
        records = [record for chunk in read_records(test, schema) for record in chunk]
        label = _within(records, schema, _ranges(labels))
    return Task(name=test.stem, schema=schema, history=before, test=records, label=label)


def _with_column(path: Path, schema: StreamSchema, column: str) -> tuple[list[Record], NDArray[np.bool_]]:
    """Read records with the label as one more field, which the decoder does not see."""
    if column in schema.features or column in (schema.key, schema.timestamp):
        raise SettingsError(f"--label-column {column}: the stream schema uses it; the detector must not see the labels")
    with_label = msgspec.structs.replace(schema, features=schema.features | {column: Feature()})
    records = [record for chunk in read_records(path, with_label) for record in chunk]
    labels = []
    for record in records:
        found = msgspec.json.decode(record.value).get(column)
        samples = found if isinstance(found, list) else [found]
        if not all(isinstance(sample, int | float) for sample in samples):
            raise SchemaError(f"{path}: the label {column!r} of record {record.offset} is {found!r}, not 0 or 1")
        labels.append(any(samples))
    return records, np.array(labels, dtype=bool)


def _ranges(path: Path) -> pd.DataFrame:
    """Read ranges of time as milliseconds, both ends included."""
    table = pd.concat(list(read_tables(path)))
    if not set(BOUNDS) <= set(table.columns):
        raise SchemaError(f"{path}: labels need the columns start and end; the file has {', '.join(table.columns)}")
    for bound in BOUNDS:
        try:
            moments = pd.to_datetime(table[bound], utc=True)
        except ValueError as error:
            raise SchemaError(f"{path}: column {bound}: {error}") from error
        table[bound] = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(milliseconds=1)
    return table


def _within(records: list[Record], schema: StreamSchema, ranges: pd.DataFrame) -> NDArray[np.bool_]:
    """Label the records whose time lies in a range, of their key if ranges have keys."""
    batch, _ = EventDecoder(schema).decode(records)
    keys = np.array([key.decode() for key in batch.keys])
    label = np.zeros(len(records), dtype=bool)
    whose = ranges["key"].tolist() if "key" in ranges else [None] * len(ranges)
    for start, end, key in zip(ranges["start"], ranges["end"], whose, strict=True):
        inside = (batch.timestamp_ms >= start) & (batch.timestamp_ms <= end)
        if isinstance(key, str):
            inside &= keys == key
        label[batch.record_index[inside]] = True
    return label
