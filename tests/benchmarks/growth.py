"""What a key costs, and whether more keys cost more: ``python -m tests.benchmarks.growth``.

Keys with a full history behind them are put into a scorer's memory, one to a million. Then polls of 1,000 events go
from bytes to encoded records, each of another key where there are as many. Each number of keys has a process of its
own, whose largest memory is told. The ratio is to a thousand keys. At last all keys are new, and as many leave.
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from streamlstm.adapters.bundle_files import read_bundle, write_bundle
from streamlstm.core.log import Record
from streamlstm.core.scorer import Scorer
from streamlstm.core.state import Rows

KEYS = (1, 1_000, 100_000, 1_000_000)
POLL = 1_000
POLLS = 75
CHANNELS = 8
START_MS = 10**12


class Cost(NamedTuple):
    """Microseconds per event of two parts, and of the whole where each key is new; bytes per key of the rows, and the
    process's largest memory in bytes."""

    core_us: float
    all_us: float
    full_us: float
    row_bytes: float
    memory_bytes: int


def records(keys: np.ndarray, first: int) -> list[Record]:
    """Return one event of each of these keys."""
    values = np.random.default_rng(first).normal(size=(len(keys), CHANNELS)).round(4).tolist()
    return [
        Record(
            topic="events",
            partition=0,
            offset=first + i,
            timestamp_ms=START_MS + 1000 * (first + i),
            key=f"sensor-{key}".encode(),
            value=msgspec.json.encode(
                {"sensor": f"sensor-{key}", "time": START_MS + 1000 * (first + i)}
                | {f"f{c}": value for c, value in enumerate(values[i])}
            ),
        )
        for i, key in enumerate(keys.tolist())
    ]


def warmed(scorer: Scorer) -> Rows:
    """Return the row of a key that has been scored for a while."""
    for at in range(0, 600, 100):
        outcome = scorer.score(scorer.read(records(np.zeros(100, np.int64), at)), {})
        scorer.accept(outcome)
    return outcome.rows


def largest_memory() -> int:
    """Return the most memory that this process held, in bytes (Linux; a process inherits ``ru_maxrss`` instead)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def cost(model: str, keys: int) -> Cost:
    """Measure in this process."""
    scorer = Scorer(read_bundle(Path(model)), max_keys=keys)
    row = warmed(scorer)
    scorer.forget(0)
    for start in range(0, keys, 10_000):
        names = [(0, f"sensor-{key}".encode()) for key in range(start, min(start + 10_000, keys))]
        scorer.arena.put(names, Rows(*(np.repeat(part, len(names), axis=0) for part in row)))
    gc.collect()
    gc.freeze()
    rng = np.random.default_rng(0)
    polls = [records(rng.choice(keys, POLL, replace=keys < POLL), 600 + n * POLL) for n in range(POLLS + 2)]
    core_us, all_us = microseconds(scorer, polls)
    first = 600 + len(polls) * POLL
    new = [records(keys + n * POLL + np.arange(POLL), first + n * POLL) for n in range(POLLS + 2)]
    _, full_us = microseconds(scorer, new)
    assert len(scorer.arena) == keys
    return Cost(core_us, all_us, full_us, scorer.parameters.layout.width * 4 + row.integers.nbytes, largest_memory())


def microseconds(scorer: Scorer, polls: list[list[Record]]) -> tuple[float, float]:
    """Return what an event takes in the median poll, but for the first two: to be scored, and altogether."""
    core_s, all_s = [], []
    for polled in polls:
        started_s = time.perf_counter()
        poll = scorer.read(polled)
        scorer.missing(poll)
        read_s = time.perf_counter()
        outcome = scorer.score(poll, {})
        scorer.accept(outcome)
        scored_s = time.perf_counter()
        scorer.commit_of(outcome)
        assert outcome.scored == POLL, outcome.rejections[:1]
        core_s.append(scored_s - read_s)
        all_s.append(time.perf_counter() - started_s)
    core_us, all_us = (statistics.median(taken[2:]) / POLL * 1e6 for taken in (core_s, all_s))
    return core_us, all_us


def main() -> None:
    """Print the table."""
    from tests.benchmarks.core_step import bundle  # not in the processes that are measured: it brings the trainer

    with tempfile.TemporaryDirectory() as directory:
        model = str(Path(directory) / "model")
        write_bundle(bundle(), Path(model), "")
        costs = {}
        for keys in KEYS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                costs[keys] = pool.apply(cost, (model, keys))
    print(f"medians of {POLLS} polls of {POLL:,} events\n")
    print(f"{'keys':>10}{'score':>12}{'all':>12}{'ratio':>8}{'new keys':>12}{'row':>10}{'memory':>12}")
    for keys, found in costs.items():
        ratio = found.all_us / costs[1_000].all_us
        print(
            f"{keys:10,}{found.core_us:9.1f} µs{found.all_us:9.1f} µs{ratio:8.2f}{found.full_us:9.1f} µs"
            f"{found.row_bytes:8,.0f} B{found.memory_bytes / 1e6:9,.0f} MB"
        )


if __name__ == "__main__":
    main()
