"""Score a file once, as if it were a topic of one partition. Apart from the scorer, which starts without pandas."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import IO

from streamlstm.adapters.files import read_records
from streamlstm.core.scorer import Outcome
from streamlstm.services.scorer import load_for, new_scorer, promised_by, tell_alerts
from streamlstm.services.settings import ScoreSettings
from streamlstm.services.totals import Totals


def score_file(path: Path, settings: ScoreSettings, out: IO[str]) -> Totals:
    """Write one CSV row per event of a file."""
    bundle = load_for(settings)
    scorer = new_scorer(bundle, replace(settings, max_keys=sys.maxsize))  # there is no log to evict to
    chunks = read_records(path, bundle.schema)
    first = next(chunks, [])  # a file that cannot be read is refused before anything is written
    writer = csv.writer(out)
    writer.writerow(["key", "time_ms", "offset", "status", "score", "tail_probability", "threshold", "alert"])
    totals = Totals(promised_by(bundle, settings).budget)
    for records in chain([first], chunks):
        poll = scorer.read(records)
        outcome = scorer.score(poll, {})
        scorer.accept(outcome)
        totals.add(outcome)
        _write_rows(writer.writerow, outcome)
        tell_alerts(outcome.alerts)
    totals.tell("scored", file=str(path), model=bundle.name)
    return totals


def _write_rows(write: Callable[[Iterable[object]], object], outcome: Outcome) -> None:
    """Write scores and rejections in the order of their offsets; unknown scores stay empty."""
    rows: list[tuple[int, list[object]]] = [
        (s.offset, [s.key, s.time_ms, s.offset, s.status, s.score, s.tail_probability, s.threshold, s.alert])
        for s in outcome.scores
    ]
    rows += [
        (r.record.offset, ["", "", r.record.offset, f"rejected: {r.reason}: {r.detail}", None, None, None, None])
        for r in outcome.rejections
    ]
    for _, row in sorted(rows, key=lambda row: row[0]):
        write("" if cell is None else cell for cell in row)
