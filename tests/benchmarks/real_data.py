"""Train and score real records, and print how well: ``python -m tests.benchmarks.real_data [--seed N]``.

Causal: the history lies before what is scored, thresholds are set without labels, every event is
scored as it arrives. Average precision and ROC are over scored events; the rate is the share of
unlabelled events flagged at a promised rate of 1e-3, the recall that of labelled stretches in which an alert was open.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from streamlstm.adapters.files import read_records
from streamlstm.core.event import EventDecoder
from streamlstm.core.schema import StreamSchema
from streamlstm.core.scorer import Scorer
from streamlstm.training.history import history_of
from streamlstm.training.train import Options, train
from tests.real_data import Task, mitbih, mitbih_100, nab, skab_valve1


def evaluate(task: Task, seed: int, updates: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return score (NaN while warming up), label and flag per event, and seconds of training."""
    schema = StreamSchema.from_toml(task.schema)
    with tempfile.TemporaryDirectory() as directory:
        history, live = Path(directory) / "history.csv", Path(directory) / "live.csv"
        task.history.to_csv(history, index=False)
        task.live.to_csv(live, index=False)
        started_s = time.monotonic()
        decoder = EventDecoder(schema)
        batches = [decoder.decode(records)[0] for records in read_records(history, schema)]
        trained = train(history_of(batches), schema, Options(seed=seed, updates=updates))
        took_s = time.monotonic() - started_s
        scorer = Scorer(trained.bundle)
        scores, flags = [], []
        for records in read_records(live, schema):
            outcome = scorer.score(scorer.read(records), {})
            scorer.accept(outcome)
            scores.append(outcome.results.score)
            flags.append(outcome.results.probability <= 1e-3)
    return np.concatenate(scores), task.event_label, np.concatenate(flags), took_s


def event_recall(label: np.ndarray, flag: np.ndarray) -> float:
    """Return the share of labelled stretches that hold a flagged event."""
    starts = np.flatnonzero(np.diff(label, prepend=0) == 1)
    ends = np.flatnonzero(np.diff(label, append=0) == -1) + 1
    return float(np.mean([flag[start:end].any() for start, end in zip(starts, ends, strict=True)]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    print(
        f"{'task':14} {'events':>7} {'anomalous':>9} {'ROC':>6} {'AP':>6} {'flagged':>8} {'recall':>7} {'train s':>8}"
    )
    torch.set_num_threads(1)
    for load in (mitbih_100, lambda: mitbih(106), lambda: mitbih(119), skab_valve1, nab):
        task = load()
        if arguments.only not in task.name:
            continue
        score, label, flag, took_s = evaluate(task, arguments.seed, arguments.updates)
        seen = np.isfinite(score)
        row(task.name, score[seen], label[seen], flag[seen], took_s)


def row(name: str, score: np.ndarray, label: np.ndarray, flag: np.ndarray, took_s: float) -> None:
    """Print one line of the table."""
    print(
        f"{name:14} {len(score):7} {label.mean():9.3f} {roc_auc_score(label, score):6.3f} "
        f"{average_precision_score(label, score):6.3f} {flag[label == 0].mean():8.5f} {event_recall(label, flag):7.2f} "
        f"{took_s:8.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
