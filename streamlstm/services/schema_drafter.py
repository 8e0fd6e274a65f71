"""Draft a stream schema from a file: where key, time and features seem to sit. A draft to be read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from streamlstm.adapters.files import read_tables
from streamlstm.core.event import LATEST_MS
from streamlstm.core.schema import readable_name
from streamlstm.errors import SchemaError

TIME_NAMES = ("time", "timestamp", "datetime", "date", "ts", "event_time", "time_ms", "time_s")
KEY_NAMES = (
    "key",
    "id",
    "sensor",
    "device",
    "machine",
    "patient",
    "card",
    "customer",
    "host",
    "record",
    "series",
    "unit",
)
LABEL_NAMES = ("label", "anomaly", "is_anomaly", "fraud", "is_fraud", "changepoint", "outlier", "target", "class")
MAX_KEY_SHARE = 0.1  # a column with more distinct values per row than this says nothing twice
LONGEST_SAMPLE_S = 1 / 16  # a feed sampled faster than this is framed into events of about this length
MAX_FRAME_SAMPLES = 32  # recipe: ECG 8, vibration 8–32


@dataclass(frozen=True)
class _Times:
    """A column read as time: its unit, and its moments in seconds."""

    unit: str
    seconds: pd.Series[float]


def draft_schema(path: Path) -> str:
    """Return a schema as TOML with comments; raises :class:`SchemaError` if no time or number is found."""
    table = next(read_tables(path), None)
    if table is None or table.empty:
        raise SchemaError(f"{path}: the file has no rows")
    time_name, times = _find_time(table, path)
    others = [str(name) for name in table.columns if name != time_name]
    key = _find_key(table, others)
    features = {name: line for name in others if name != key and (line := _feature_lines(name, table[name]))}
    if not any(line.startswith("[") and 'kind = "numeric"' in line for line in features.values()):
        raise SchemaError(f"{path}: no column of numbers was found among {', '.join(map(repr, others))}")
    gap_s = _typical_gap_s(times, table[key] if key else None)
    frame = _frame_samples(gap_s)
    days = (times.seconds.max() - times.seconds.min()) / 86400
    lines = [
        f"# Drafted from {path.name} ({len(table):,} rows read). Check every line: a draft is a guess.",
        f"key = {json.dumps(key)}" if key else '# key = "..."    no column looks like one: all events are one key\'s',
        f"timestamp = {json.dumps(time_name)}",
        f"timestamp_unit = {json.dumps(times.unit)}",
        f"# A row every {gap_s:g} s per key, over {days:.1f} days.",
        f"frame_samples = {frame}" + ("    # sampled fast: so many rows make one event" if frame > 1 else ""),
        "# calendar = true    # hour and weekday as inputs; without it, training finds out whether they help",
        "# expire_after_s = 86400    # a key silent for so long starts anew; without it, never",
    ]
    return "\n".join([*lines, "", *features.values()])


def _find_time(table: pd.DataFrame, path: Path) -> tuple[str, _Times]:
    """Return the first column that reads as time, those with a telling name first."""
    names = sorted(map(str, table.columns), key=lambda name: name.lower() not in TIME_NAMES)
    for name in names:
        times = _as_times(table[name], named=name.lower() in TIME_NAMES)
        if times is not None:
            return name, times
    raise SchemaError(f"{path}: no column reads as time; the columns are {', '.join(map(repr, names))}")


def _as_times(column: pd.Series[Any], *, named: bool) -> _Times | None:
    if pd.api.types.is_datetime64_any_dtype(column):
        return _Times("iso8601", _seconds(column))
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().mean() > 0.9:
        for unit, per_s, least in (("us", 1e6, 1e14), ("ms", 1e3, 1e11), ("s", 1.0, 1e8)):
            if least <= numbers.median() < LATEST_MS / 1000 * per_s:
                return _Times(unit, numbers / per_s)
        return None  # too small, or too large, for a time since 1970
    moments = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)
    if moments.notna().mean() > 0.9 or (named and moments.notna().mean() > 0.5):
        return _Times("iso8601", _seconds(moments))
    return None


def _seconds(moments: pd.Series[Any]) -> pd.Series[float]:
    """Return moments as seconds since 1970; not-a-number where there is none."""
    return (pd.to_datetime(moments, utc=True) - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)


def _find_key(table: pd.DataFrame, names: list[str]) -> str | None:
    for name in sorted(names, key=lambda name: not _is_named(name, KEY_NAMES)):
        distinct = table[name].nunique()
        repeats = 1 <= distinct <= max(2, MAX_KEY_SHARE * len(table))
        telling = _is_named(name, KEY_NAMES)
        if repeats and table[name].notna().all() and telling:
            return name
    return None


def _is_named(name: str, names: tuple[str, ...]) -> bool:
    parts = name.lower().replace("-", "_").split("_")
    return name.lower() in names or bool(set(parts) & set(names))


def _feature_lines(name: str, column: pd.Series[Any]) -> str:
    """Return a feature's table, commented out where it should be left alone."""
    numbers = pd.to_numeric(column, errors="coerce")
    missing = column.isna().mean()
    numeric = numbers.notna().sum() >= 0.9 * column.notna().sum()
    table = [f"[features.{json.dumps(name, ensure_ascii=False)}]"]
    table.append('kind = "numeric"' if numeric else 'kind = "categorical"')
    if numeric:
        table.append('unit = ""')
    if missing:
        table.append(f"optional = true    # missing in {missing:.1%} of the rows")
    reason = ""
    if not readable_name(name):
        reason = "its name holds quotes, backslashes or control characters; rename it"
    elif _is_named(name, LABEL_NAMES):
        reason = "looks like a label: an answer must never be an input"
    elif column.nunique() <= 1:
        reason = "never changes in these rows"
    elif not numeric and column.nunique() > 0.5 * len(column):
        reason = "hardly a value twice: an identifier or free text"
    if reason:
        return "\n".join([f"# Left out: {reason}.", *(f"# {line}" for line in table), ""])
    return "\n".join([*table, ""])


def _typical_gap_s(times: _Times, key: pd.Series[Any] | None) -> float:
    """Return the median gap between rows of one key, in seconds."""
    gaps = times.seconds.groupby(key).diff() if key is not None else times.seconds.diff()
    positive = gaps[gaps > 0]
    return float(f"{positive.median():.4g}") if len(positive) else 0.0


def _frame_samples(gap_s: float) -> int:
    if not 0 < gap_s < LONGEST_SAMPLE_S:
        return 1
    return int(min(2 ** round(float(np.log2(LONGEST_SAMPLE_S / gap_s))), MAX_FRAME_SAMPLES))
