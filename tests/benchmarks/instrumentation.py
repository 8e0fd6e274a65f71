"""What being watched costs a scorer: ``python -m tests.benchmarks.instrumentation``.

The same polls with and without an observer, in turn, in one process, through score_polled and a log that costs
nothing. The median of the pairwise ratios of the times is printed: 1.01 is one per cent slower.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from streamlstm.adapters.health import Health
from streamlstm.adapters.scorer_metrics import ScorerMetrics
from streamlstm.core.commit import Commit
from streamlstm.core.log import Record, Standing
from streamlstm.core.observer import NOBODY, Observer
from streamlstm.core.scorer import Outcome, Scorer
from streamlstm.services.observed import observed
from streamlstm.services.pipeline import score_polled
from tests.builders import bundle, make_feed

EVENTS = 20_000
KEYS = 100
REPEATS = 15


class Memory:
    """A session whose log is a list, and whose commits are forgotten."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records, self.at = records, 0

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Return the next records."""
        self.at += max_records
        return self.records[self.at - max_records : self.at]

    def claims(self) -> Mapping[int, int]:
        """Return one partition."""
        return {0: 1}

    def standing(self) -> Standing:
        """Return a member."""
        return Standing(joined=True, restoring={})

    def lag(self) -> Mapping[int, int]:
        """Return what is left."""
        return {0: len(self.records) - self.at}

    def load_states(self, keys: Iterable[tuple[int, bytes]]) -> Mapping[tuple[int, bytes], bytes]:
        """Return nothing."""
        return {}

    def watermarks(self) -> Mapping[int, int]:
        """Return nothing."""
        return {}

    def commit(self, commit: Commit) -> None:
        """Do nothing."""

    def rewind(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def seconds(records: Sequence[Record], poll_records: int, observer: Observer) -> float:
    """Return how long it takes to score all records."""
    session, scorer = observed(Memory(records), observer), Scorer(bundle())
    arena = scorer.arena

    def tell(outcome: Outcome) -> None:
        observer.scored(outcome, len(arena), arena.nbytes, arena.evicted)

    started_s = time.perf_counter()
    with ThreadPoolExecutor(1) as beside:
        while polled := session.poll(poll_records, 0.0):
            score_polled(session, scorer, polled, poll_records, beside, stored=tell)
    return time.perf_counter() - started_s


def main() -> None:
    """Print a line per size of poll."""
    records = make_feed(EVENTS // KEYS, [f"k{i}" for i in range(KEYS)])
    print("| records a poll | µs per event, unwatched | watched over unwatched |")
    print("|---|---|---|")
    for poll_records in (5_000, 500, 50):
        seconds(records, poll_records, NOBODY)
        pairs = []
        for _ in range(REPEATS):
            plain = seconds(records, poll_records, NOBODY)
            pairs.append((plain, seconds(records, poll_records, ScorerMetrics("score", "events", "g", Health(300.0)))))
        plain_us = statistics.median(plain for plain, _ in pairs) / len(records) * 1e6
        ratio = statistics.median(watched / plain for plain, watched in pairs)
        print(f"| {poll_records} | {plain_us:.1f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
