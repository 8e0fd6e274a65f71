"""Judge detection on simulated feeds: ``python -m tests.benchmarks.simulated [--seeds 11 12 13] [--week [--hours H]]``.

Recall and delay by kind of fault, and false alarms per key and hour
against those promised. The default seeds were looked at while the threshold and its guard were chosen: for
an unseen judgement give others. ``--week`` scores a simulated week of one healthy patient instead (or
``--hours`` of it), and holds the alarms against the promise, those of the first hours, when the key is young, apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median

import msgspec

from simulators.demo import PLANS, Plan
from simulators.feed import events
from simulators.feeds import FEEDS, write_feed
from simulators.judge import episodes_of, judge
from streamlstm.adapters.files import read_records
from streamlstm.core.bundle import Bundle
from streamlstm.core.event import EventDecoder
from streamlstm.core.log import Record
from streamlstm.core.record import AlertRecord
from streamlstm.core.schema import StreamSchema
from streamlstm.core.scorer import Scorer
from streamlstm.services.wording import counted
from streamlstm.training.history import history_of
from streamlstm.training.train import Options, train

START_MS = 1_767_225_600_000
CLEAN_S = {"ecg": 600.0, "vibration": 180.0}
LIVE_S = {"ecg": 3600.0, "vibration": 1200.0}
POLL = 5_000
WEEK_HOURS, YOUNG_HOURS = 168.0, 6.0


def learn(history: Sequence[Sequence[Record]], schema: StreamSchema, plan: Plan, seed: int) -> Bundle:
    """Train on decoded history with the plan's alarm budget."""
    decoder = EventDecoder(schema)
    batches = [decoder.decode(records)[0] for records in history]
    return train(history_of(batches), schema, Options(seed=seed, alarms=plan.alarms)).bundle


def score(bundle: Bundle, polls: Iterator[list[Record]]) -> tuple[list[AlertRecord], int, int]:
    """Return all alerts, the last event time (ms), and the number of flagged events."""
    scorer, alerts, last_ms, flagged = Scorer(bundle), list[AlertRecord](), 0, 0
    for records in polls:
        outcome = scorer.score(scorer.read(records), {})
        scorer.accept(outcome)
        alerts += outcome.alerts
        last_ms = int(outcome.poll.batch.timestamp_ms[-1])
        flagged += int((outcome.results.probability <= bundle.alerting.alarm_rate).sum())
    return alerts, last_ms, flagged


def judge_feed(plan: Plan, seeds: Sequence[int]) -> None:
    """Print recall by kind over all seeds, and false alarms against the promise for each."""
    injected: Counter[str] = Counter()
    delays: dict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            clean_s, live_s = CLEAN_S[plan.feed], LIVE_S[plan.feed]
            faults = write_feed(
                FEEDS[plan.feed],
                directory,
                keys=plan.keys,
                seconds=clean_s + live_s,
                clean_s=clean_s,
                seed=seed,
                start_ms=START_MS,
            )
            schema = StreamSchema.from_toml((directory / f"{plan.feed}.toml").read_text())
            history = list(read_records(directory / f"{plan.feed}.history.jsonl", schema))
            bundle = learn(history, schema, plan, seed)
            alerts, last_ms, _ = score(bundle, read_records(directory / f"{plan.feed}.live.jsonl", schema))
        verdicts, false = judge(faults, episodes_of(alerts, last_ms))
        hours = plan.keys * live_s / 3600
        print(
            f"{plan.feed}, seed {seed}: {sum(v.found for v in verdicts)} of {len(faults)} found, "
            f"{counted(false, 'false alarm')} in {hours:.1f} key-hours: {false / hours:.2f} an hour, "
            f"promised {plan.false_alarms_per_hour:g}",
            flush=True,
        )
        for verdict in verdicts:
            injected[verdict.kind] += verdict.injected
            delays[verdict.kind] += verdict.delays_s
    print(f"\n{'fault':12} {'injected':>8} {'found':>6} {'recall':>7} {'median delay':>13}")
    for kind, count in sorted(injected.items()):
        found = delays[kind]
        typical = f"{median(found):11.1f} s" if found else ""
        print(f"{kind:12} {count:8} {len(found):6} {len(found) / count:7.2f} {typical}")
    print()


def healthy(seed: int, hours: float) -> None:
    """Print the alarms of a healthy simulated patient against the promise."""
    plan = PLANS[0]
    feed = FEEDS[plan.feed]
    sources = feed.sources(1, seed, START_MS, {}, 0.0)
    schema = StreamSchema.from_toml(feed.schema(sources))
    stream = events(sources, frame_samples=feed.frame_samples, start_ms=START_MS, duration_s=600.0 + hours * 3600)
    polls = _polls(stream)
    history = list(islice(polls, int(600 * plan.events_per_s // POLL) + 1))
    bundle = learn(history, schema, plan, seed)
    started_s = time.monotonic()
    alerts, last_ms, flagged = score(bundle, polls)
    opened = [episode.since_ms for episode in episodes_of(alerts, last_ms)]
    young = sum(since_ms < START_MS + (600 + YOUNG_HOURS * 3600) * 1000 for since_ms in opened)
    count = hours * 3600 * plan.events_per_s
    print(
        f"{hours:g} healthy hours, seed {seed}: {count:,.0f} events, {flagged} flagged ({flagged / count:.1e} of them, "
        f"promised {bundle.alerting.alarm_rate:.1e}), {counted(len(opened), 'alert')}: {len(opened) / hours:.2f} "
        f"an hour, promised at most {plan.false_alarms_per_hour:g}; {young} in the first {YOUNG_HOURS:g} hours; "
        f"{(time.monotonic() - started_s):.0f} s",
        flush=True,
    )


def _polls(stream: Iterator[dict[str, object]]) -> Iterator[list[Record]]:
    offset = 0
    while chunk := list(islice(stream, POLL)):
        yield [Record("ecg", 0, offset + i, 1 << 44, None, msgspec.json.encode(event)) for i, event in enumerate(chunk)]
        offset += len(chunk)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--week", action="store_true")
    parser.add_argument("--hours", type=float, default=WEEK_HOURS)
    arguments = parser.parse_args()
    if arguments.week:
        for seed in arguments.seeds:
            healthy(seed, arguments.hours)
        return
    for plan in PLANS:
        judge_feed(plan, arguments.seeds)


if __name__ == "__main__":
    main()
