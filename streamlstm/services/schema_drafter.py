"""Draft a stream schema from a file: where key, time and features seem to sit. A draft to be read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import structlog

from streamlstm.adapters.files import LINES, read_first_rows
from streamlstm.core.event import LATEST_MS
from streamlstm.core.schema import readable_name
from streamlstm.errors import SchemaError
from streamlstm.services.wording import counted
from streamlstm.training.history import ORDERLY_SHARE

TIME_NAMES = ("time", "timestamp", "datetime", "date", "ts", "event_time", "time_ms", "time_s")
KEY_NAMES = (
    "key",
    "id",
    "sensor",
    "device",
    "machine",
    "pump",
    "motor",
    "engine",
    "turbine",
    "meter",
    "station",
    "asset",
    "vehicle",
    "node",
    "account",
    "patient",
    "card",
    "customer",
    "host",
    "record",
    "series",
    "unit",
)
KEY_ENDINGS = ("key", "id", "name", "no", "number")  # of a name in parts: machine_id
LABEL_NAMES = ("label", "anomaly", "is_anomaly", "fraud", "is_fraud", "changepoint", "outlier", "target", "class")
MAX_KEY_SHARE = 0.1  # a column with more distinct values per row than this says nothing twice
LONGEST_SAMPLE_S = 1 / 16  # a feed sampled faster than this is framed into events of about this length
MAX_FRAME_SAMPLES = 32  # recipe: ECG 8, vibration 8–32
ADVICE = "several keys in one? Name the column that tells them apart as the key; else sort the file by time"

logger = structlog.get_logger()


@dataclass(frozen=True)
class _Times:
    """A column read as time: its unit, and its moments in seconds."""

    unit: str
    seconds: pd.Series[float]


class _Key(NamedTuple):
    """The column chosen as key, or None; why; how many rows are out of order with it, and an example of those."""

    name: str | None
    why: str
    disordered: int
    example: str


def draft_schema(path: Path) -> str:
    """Return a schema as TOML with comments; raises :class:`SchemaError` if no time or number is found.

    The key and the reason for it are logged, and a warning if times repeat or go back within a key.
    """
    table = read_first_rows(path)
    if table.empty:
        raise SchemaError(f"{path}: the file has no rows")
    lines_of_json = path.suffix in LINES
    time_name, times = _find_time(table, path)
    if _as_times(pd.Series([time_name]), named=False) is not None:
        raise SchemaError(
            f"{path}: the first line is data, such as {time_name!r}, not names of columns: put a line of names first"
        )
    others = [str(name) for name in table.columns if name != time_name]
    plain, frame = _unframed(table) if lines_of_json else (table, 0)
    key = _find_key(plain, others, times)
    features = {
        name: _feature_lines(
            name, plain[name], _numbers(plain[name], typed=lines_of_json), _unreadable(table, name, frame)
        )
        for name in others
        if name != key.name
    }
    if not any(line.startswith("[") and 'kind = "numeric"' in line for line in features.values()):
        raise SchemaError(f"{path}: no column of numbers was found among {', '.join(map(repr, others))}")
    gap_s = _typical_gap_s(times, plain[key.name] if key.name else None)
    frame = frame or (1 if lines_of_json else _frame_samples(gap_s))
    why_framed = "a line holds so many samples" if lines_of_json else "sampled fast: so many rows make one event"
    days = (times.seconds.max() - times.seconds.min()) / 86400
    logger.info("drafted", file=str(path), key=key.name, why=key.why)
    lines = [
        f"# Drafted from {path.name} ({len(table):,} rows read). Check every line: a draft is a guess.",
        f"key = {json.dumps(key.name, ensure_ascii=False)}    # {key.why}"
        if key.name
        else f'# key = "..."    {key.why}',
        *_disorder_lines(key, len(table)),
        f"timestamp = {json.dumps(time_name)}",
        f"timestamp_unit = {json.dumps(times.unit)}",
        f"# A row every {gap_s:g} s per key, over {days:.1f} days.",
        f"frame_samples = {frame}" + (f"    # {why_framed}" if frame > 1 else ""),
        "# calendar = true    # hour and weekday as inputs; without it, training finds out whether they help",
        "# expire_after_s = 86400    # a key silent for so long starts anew; without it, never",
    ]
    return "\n".join([*lines, "", *features.values()])


def _disorder_lines(key: _Key, rows: int) -> list[str]:
    """Return a warning for the draft, and log it, if times repeat or go back within a key."""
    if key.disordered <= ORDERLY_SHARE * rows:
        return []
    found = f"{key.disordered:,} of {rows:,} rows repeat a time of their key or go back, such as {key.example}"
    logger.warning("times repeat or go back", rows=found, advice=ADVICE)
    return [f"# Warning: {found}.", f"# {ADVICE[0].upper()}{ADVICE[1:]}."]


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


def _find_key(table: pd.DataFrame, names: list[str], times: _Times) -> _Key:
    """Return the column within whose values times rise, or if they rise anyhow, one that is called like a key.

    Of several that put times in order, one that is called so; then text before numbers, then the one of fewest values.
    """
    rows, seconds = len(table), times.seconds[~table.astype(str).duplicated()].dropna()
    without, example = _disorder(seconds, None)
    mixed = without > ORDERLY_SHARE * rows
    found = []
    for name in names:
        distinct = table[name].astype(str).nunique()
        named = 0 if name.lower() in KEY_NAMES else 1 if _is_called_key(name) else 2
        if (named < 2 or mixed) and _may_be_key(name, table[name], distinct):
            left, where = _disorder(seconds, table[name])
            unordered, text = left > ORDERLY_SHARE * rows, _numbers(table[name], typed=False).isna().any()
            if named < 2 or not unordered:
                found.append(((unordered, named, not text, distinct), name, left, where))
    if not found:
        why = "no column puts times in order" if mixed else "no column looks like one"
        return _Key(None, f"{why}: all events are one key's", without, example)
    (_, named, _, distinct), name, left, where = min(found, key=lambda one: one[0])
    why = f"{counted(distinct, 'value')}; " + ("called like a key" if named < 2 else "puts times in order")
    if mixed:
        why += f": {without:,} of {rows:,} rows repeat a time or go back without it, {left:,} with it"
    return _Key(name, why, left, where)


def _disorder(seconds: pd.Series[float], key: pd.Series[Any] | None) -> tuple[int, str]:
    """Return how many rows repeat a time of their key or lie before the row before, and the first such time."""
    rows = pd.DataFrame({"time": seconds, "key": 0 if key is None else key[seconds.index].astype(str)})
    wrong = rows.duplicated() | (rows.groupby("key")["time"].diff() < 0)
    if not wrong.any():
        return 0, ""
    first = rows[wrong].iloc[0]
    moment = pd.Timestamp(first["time"], unit="s").round("ms").isoformat()
    return int(wrong.sum()), moment + ("" if key is None else f" of {first['key']}")


def _may_be_key(name: str, column: pd.Series[Any], distinct: int) -> bool:
    """Return whether a column holds few texts or whole numbers, none missing, and is no label."""
    numbers = pd.to_numeric(column, errors="coerce")
    fractions = numbers.notna().all() and (numbers % 1 != 0).any()
    few = 1 <= distinct <= max(2, MAX_KEY_SHARE * len(column))
    return bool(few and column.notna().all() and not fractions and not _is_named(name, LABEL_NAMES))


def _is_called_key(name: str) -> bool:
    """Return whether a name is a key's, or ends as one: ``pump``, ``machine_id``, ``card-key``."""
    return name.lower() in KEY_NAMES or name.lower().replace("-", "_").split("_")[-1] in KEY_ENDINGS


def _unframed(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return a table of JSON values with the first sample of each list, and how long lists are; 0 without any."""
    lengths = pd.concat([table[name].map(_length) for name in table.columns]).dropna()
    frame = int(lengths.mode().iloc[0]) if len(lengths) else 0
    return table.map(lambda cell: next(iter(cell), None) if isinstance(cell, list) else cell), frame


def _length(cell: Any) -> float:
    return len(cell) if isinstance(cell, list) else np.nan


def _unreadable(table: pd.DataFrame, name: str, frame: int) -> str:
    """Return why a column of JSON values cannot be a feature beside lists of ``frame`` samples; "" if it can."""
    cells = table[name].dropna()
    lengths = cells.map(_length)
    if cells.map(lambda cell: isinstance(cell, dict)).any():
        return "an object within the event; put its fields beside the others"
    if lengths.notna().any() and (lengths != frame).any():
        return f"not always a list of {frame} samples"
    if frame and lengths.isna().all() and len(cells) and _numbers(cells, typed=True).notna().all():
        return f"one number, where others have {frame} samples"
    return ""


def _numbers(column: pd.Series[Any], *, typed: bool) -> pd.Series[float]:
    """Return a column as numbers, not-a-number where it holds none; ``typed``: a text is none, whatever it says."""
    if typed:
        column = column.map(lambda cell: cell if isinstance(cell, int | float) and not isinstance(cell, bool) else None)
    return pd.to_numeric(column, errors="coerce").astype(float)


def _is_named(name: str, names: tuple[str, ...]) -> bool:
    parts = name.lower().replace("-", "_").split("_")
    return name.lower() in names or bool(set(parts) & set(names))


def _feature_lines(name: str, column: pd.Series[Any], numbers: pd.Series[float], unreadable: str) -> str:
    """Return a feature's table, commented out where there is a reason to leave it alone."""
    missing = column.isna().mean()
    numeric = numbers.notna().sum() >= 0.9 * column.notna().sum()
    table = [f"[features.{json.dumps(name, ensure_ascii=False)}]"]
    table.append('kind = "numeric"' if numeric else 'kind = "categorical"')
    if numeric:
        table.append('unit = ""')
    if missing:
        table.append(f"optional = true    # missing in {missing:.1%} of the rows")
    if reason := unreadable or _useless(name, column, numeric=bool(numeric)):
        return "\n".join([f"# Left out: {reason}.", *(f"# {line}" for line in table), ""])
    return "\n".join([*table, ""])


def _useless(name: str, column: pd.Series[Any], *, numeric: bool) -> str:
    """Return why a column that can be read is no feature; "" if it may be one."""
    if not readable_name(name):
        return "its name holds quotes, backslashes or control characters; rename it"
    if _is_named(name, LABEL_NAMES):
        return "looks like a label: an answer must never be an input"
    if column.astype(str)[column.notna()].nunique() <= 1:
        return "never changes in these rows"
    if not numeric and column.nunique() > 0.5 * len(column):
        return "hardly a value twice: an identifier or free text"
    return ""


def _typical_gap_s(times: _Times, key: pd.Series[Any] | None) -> float:
    """Return the median gap between rows of one key, in seconds."""
    gaps = times.seconds.groupby(key).diff() if key is not None else times.seconds.diff()
    positive = gaps[gaps > 0]
    return float(f"{positive.median():.4g}") if len(positive) else 0.0


def _frame_samples(gap_s: float) -> int:
    if not 0 < gap_s < LONGEST_SAMPLE_S:
        return 1
    return int(min(2 ** round(float(np.log2(LONGEST_SAMPLE_S / gap_s))), MAX_FRAME_SAMPLES))
