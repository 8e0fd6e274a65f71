"""The whole path on one machine: ``python -m tests.benchmarks.sqlite_path``. JSON in, scores out, durable.

A backlog in a SQLite log is scored, one transaction stored while the events of the next are scored, as a scorer that is
behind does. Beside it the same path with scoring left out: it reads and decodes the same events, writes the same rows,
already encoded, and commits them, one after the other. In one process, in turn; medians of the repeats, and of the
ratios of the runs that followed each other. Where the time goes is told of scoring one transaction after the other.
Last, what fewer score records buy.
"""

from __future__ import annotations

import gc
import logging
import statistics
import tempfile
import time
import uuid
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Annotated, get_args

import cyclopts
import structlog

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.bundle import Bundle
from streamlstm.core.commit import Commit
from streamlstm.core.evidence import Told
from streamlstm.core.scorer import Scorer
from streamlstm.core.topic import alerts_topic, dead_letters_topic, scores_topic
from tests.benchmarks.core_step import bundle
from tests.benchmarks.kafka_throughput import PARTITIONS, TOPIC, Stopwatch, feed, machine, one_poll, score_backlog

STAGES = {"consume": "read", "decode": "decode", "score": "score", "encode": "encode", "rest": "write and commit"}
Count = Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1))]


def fill(log: SqliteLog, events: int, keys: int) -> None:
    """Write the events that all runs score."""
    for topic in (TOPIC, scores_topic(TOPIC), alerts_topic(TOPIC), dead_letters_topic(TOPIC)):
        log.create_topic(topic, PARTITIONS)
    records = feed(events, keys)
    while batch := list(islice(records, 20_000)):
        log.append(TOPIC, batch)


def score(log: SqliteLog, model: Bundle, events: int, most: int, told: Told = "all") -> float:
    """Score the topic under a new group; return the seconds it took."""
    with closing(log.open_session(TOPIC, uuid.uuid4().hex)) as session:
        return score_backlog(session, Scorer(model, told=told), events, most)


def score_staged(
    log: SqliteLog, model: Bundle, events: int, most: int, told: Told = "all"
) -> tuple[float, list[Commit], dict[str, float]]:
    """Score the topic under a new group, one transaction after the other; return the seconds it took, the commits, and
    the seconds by stage."""
    with closing(log.open_session(TOPIC, uuid.uuid4().hex)) as session:
        scorer, done, commits, watch = Scorer(model, told=told), 0, [], Stopwatch()
        started_s = time.perf_counter()
        while done < events:
            commit, count = one_poll(session, scorer, most, watch)
            commits.append(commit)
            done += count
        return time.perf_counter() - started_s, commits, watch.seconds


def write(log: SqliteLog, model: Bundle, commits: list[Commit], most: int) -> float:
    """Do the same without scoring; return the seconds it took."""
    with closing(log.open_session(TOPIC, uuid.uuid4().hex)) as session:
        scorer = Scorer(model)
        started_s = time.perf_counter()
        for commit in commits:
            scorer.read(session.poll(most, 1.0))
            session.commit(commit)
        return time.perf_counter() - started_s


def main(*, events: Count = 50_000, keys: Count = 3_000, most: Count = 5_000, repeats: Count = 5) -> None:
    """Print the ratio, the stages, and what fewer score records buy.

    Parameters
    ----------
    events
        In the backlog that is scored.
    keys
        Of these events.
    most
        Records taken at once.
    repeats
        Of each measurement.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    model = bundle()
    gc.collect()
    gc.freeze()  # the trainer's libraries are in this process, and not in a scorer's
    with tempfile.TemporaryDirectory() as directory, closing(SqliteLog(Path(directory) / "log.db")) as log:
        print(f"{machine()}\n{events:,} events, {keys:,} keys, {most:,} a poll; medians of {repeats}\n")
        fill(log, events, keys)
        _, commits, _ = score_staged(log, model, events, most)
        runs = [
            (
                write(log, model, commits, most),
                score(log, model, events, most),
                score_staged(log, model, events, most),
            )
            for _ in range(repeats)
        ]
        bare_s, ours_s = (statistics.median(run[side] for run in runs) for side in (0, 1))
        share = statistics.median(bare / ours for bare, ours, _ in runs)
        print(f"without scoring {events / bare_s:,.0f}/s, scoring {events / ours_s:,.0f}/s: {share:.0%} of it")
        after_s = statistics.median(staged[0] for *_, staged in runs)
        share = statistics.median(bare / staged[0] for bare, _, staged in runs)
        print(f"scoring one transaction after the other {events / after_s:,.0f}/s: {share:.0%} of it")
        stages = {shown: statistics.median(staged[2][stage] for *_, staged in runs) for stage, shown in STAGES.items()}
        print("µs per event:", ", ".join(f"{stage} {s / events * 1e6:.1f}" for stage, s in stages.items()))
        for told in get_args(Told):
            ours_s = statistics.median(score(log, model, events, most, told) for _ in range(repeats))
            records = sum(len(commit.scores) for commit in score_staged(log, model, events, most, told)[1])
            print(f"--scores {told:10} {events / ours_s:8,.0f} events/s, {records / events:.1%} have a score record")


if __name__ == "__main__":
    cyclopts.run(main)
