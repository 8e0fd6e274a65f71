"""WFDB records on disk (``RECORD.hea`` beside its signals) → tables, in bounded chunks.

The library ``wfdb`` is optional, and imported when the first record is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from streamlstm.errors import SchemaError, SettingsError

START_DATE = date(2000, 1, 1)  # of a record whose header has none, as most public ones; chosen


def read_wfdb(path: Path, rows: int) -> Iterator[tuple[pd.DataFrame, float]]:
    """Yield tables of at most ``rows`` samples, each with the share of the record (0 to 1) read with it.

    The columns are ``record`` (its name), ``time``, and one per lead under the lead's name, in physical
    units; invalid samples are missing. Times are UTC to the microsecond, from the header's start and
    sampling rate. A lead sampled several times per frame becomes its mean, so that all leads share the
    record's rate.

    Raises :class:`SchemaError` for what is no readable record, :class:`SettingsError` without the library.
    """
    wfdb, name = _library(), str(path.with_suffix(""))
    try:
        header = wfdb.rdheader(name)
        if not header.n_sig or header.sig_len is None:
            raise SchemaError(f"{path}: the header names no signals, or not how long they are")
        start = np.datetime64(datetime.combine(header.base_date or START_DATE, header.base_time or time()), "us")
        for first in range(0, header.sig_len, rows):
            end = min(first + rows, header.sig_len)
            signals = wfdb.rdrecord(name, sampfrom=first, sampto=end)
            micros = np.round(np.arange(first, end) * (1e6 / header.fs)).astype("timedelta64[us]")
            columns: dict[str, Any] = {"record": header.record_name, "time": start + micros}
            leads = _lead_names(signals.sig_name, taken=list(columns))
            columns |= zip(leads, signals.p_signal.T, strict=True)
            yield pd.DataFrame(columns), end / header.sig_len
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # wfdb has no error of its own
        raise SchemaError(f"{path}: not a WFDB record that can be read: {error}") from error


def _library() -> Any:
    """Import ``wfdb``, quietly: release 4.3 warns of a setting of pandas that it makes itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import wfdb
        except ImportError as error:
            raise SettingsError(
                "WFDB records are read with the library wfdb, which is not installed: pip install 'streamlstm[wfdb]'"
            ) from error
    return wfdb


def _lead_names(names: Sequence[str | None], taken: Sequence[str]) -> list[str]:
    """Return one name per lead, no name twice: a second "ECG" is "ECG#2", a lead without a name "signal"."""
    seen, given = list(taken), []
    for name in (name or "signal" for name in names):
        seen.append(name)
        given.append(name if seen.count(name) == 1 else f"{name}#{seen.count(name)}")
    return given
