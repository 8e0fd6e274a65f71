"""Judge detection on simulated feeds: ``python -m tests.benchmarks.simulated [--seeds 11 12 13] [--week [--hours H]]``.

Recall and delay by kind of fault, and false alarms against those promised; of all feeds, or of ``--feeds``. Where
faults last for days, some coincide with a false alarm: "by chance" is the share of which one would be found by alarms
that come as often as the false ones, at random. The default seeds were looked at while the threshold and its guard were
chosen: for an unseen judgement give others. ``--week`` scores a simulated week of one healthy patient instead (or
``--hours`` of it), and holds the alarms against the promise, those of the first hours, when the key is young, apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import exp
from pathlib import Path
from statistics import mean, median

import msgspec

from simulators.feed import Event
from simulators.feeds import FEEDS, write_feed
from simulators.judge import episodes_of, judge
from streamlstm.adapters.files import read_records
from streamlstm.core.budget import UNITS_MS, read_budget
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
HOUR_S, WEEK_S = 3600.0, 7 * 86400.0


@dataclass(frozen=True)
class Case:
    """A feed to judge: its keys, how long it is clean and how long live, and what is promised.

    ``grace_s``: so long after a fault's end an alert is still its own; two readings, or as long as queues last.
    """

    feed: str
    keys: int
    clean_s: float
    live_s: float
    alarms: str
    grace_s: float = 10.0


CASES = (
    Case("ecg", 4, 600.0, 3600.0, "1 per key per hour"),
    Case("vibration", 3, 180.0, 1200.0, "1 per key per hour"),
    Case("energy", 6, 8 * WEEK_S, 6 * WEEK_S, "1 per key per week", 1800.0),
    Case("traffic", 6, 8 * WEEK_S, 6 * WEEK_S, "1 per key per week", HOUR_S),
    Case("cards", 40, 20 * WEEK_S, 12 * WEEK_S, "1 per key per month", 6 * HOUR_S),
)
EVENTS_PER_S = 16.0  # of a simulated patient
POLL = 5_000
WEEK_HOURS, YOUNG_HOURS = 168.0, 6.0


def learn(history: Sequence[Sequence[Record]], schema: StreamSchema, alarms: str, seed: int) -> Bundle:
    """Train on decoded history with an alarm budget."""
    decoder = EventDecoder(schema)
    batches = [decoder.decode(records)[0] for records in history]
    return train(history_of(batches), schema, Options(seed=seed, alarms=alarms)).bundle


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


def judge_feed(case: Case, seeds: Sequence[int]) -> None:
    """Print recall by kind over all seeds, and false alarms against the promise for each."""
    injected: Counter[str] = Counter()
    delays: dict[str, list[float]] = defaultdict(list)
    chance: dict[str, list[float]] = defaultdict(list)
    budget = read_budget(case.alarms)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            faults = write_feed(
                FEEDS[case.feed],
                directory,
                keys=case.keys,
                seconds=case.clean_s + case.live_s,
                clean_s=case.clean_s,
                seed=seed,
                start_ms=START_MS,
            )
            schema = StreamSchema.from_toml((directory / f"{case.feed}.toml").read_text(encoding="utf-8"))
            history = list(read_records(directory / f"{case.feed}.history.jsonl", schema))
            bundle = learn(history, schema, case.alarms, seed)
            alerts, last_ms, _ = score(bundle, read_records(directory / f"{case.feed}.live.jsonl", schema))
        verdicts, false = judge(faults, episodes_of(alerts, last_ms), round(1000 * case.grace_s))
        key_ms = 1000 * case.keys * case.live_s
        print(
            f"{case.feed}, seed {seed}: {sum(v.found for v in verdicts)} of {len(faults)} found, "
            f"{counted(false, 'false alarm')} in {key_ms / UNITS_MS[budget.unit]:.1f} key-{budget.unit}s: "
            f"{budget.realised(false, key_ms):.2f} per key per {budget.unit}, promised {budget.alarms:g}",
            flush=True,
        )
        for verdict in verdicts:
            injected[verdict.kind] += verdict.injected
            delays[verdict.kind] += verdict.delays_s
        for fault in faults:
            exposed_ms = fault.end_ms - fault.start_ms + 1000 * case.grace_s
            chance[fault.kind].append(1 - exp(-false * exposed_ms / key_ms))
    print(f"\n{'fault':13} {'injected':>8} {'found':>6} {'recall':>7} {'by chance':>10} {'median delay':>13}")
    for kind, count in sorted(injected.items()):
        found = delays[kind]
        typical = f"{span(median(found)):>13}" if found else ""
        print(f"{kind:13} {count:8} {len(found):6} {len(found) / count:7.2f} {mean(chance[kind]):10.2f} {typical}")
    print()


def span(seconds: float) -> str:
    """Return a time in the unit that suits it.

    >>> span(2.5), span(5400.0)
    ('2.5 s', '1.5 h')
    """
    for unit, length_s in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.1f} s"


def healthy(seed: int, hours: float) -> None:
    """Print the alarms of a healthy simulated patient against the promise."""
    case = CASES[0]
    feed = FEEDS[case.feed]
    sources = feed.sources(1, seed, START_MS, {}, 0.0)
    schema = StreamSchema.from_toml(feed.schema(sources))
    stream = feed.events(sources, START_MS, case.clean_s + hours * 3600)
    polls = _polls(stream)
    history = list(islice(polls, int(case.clean_s * EVENTS_PER_S // POLL) + 1))
    bundle = learn(history, schema, case.alarms, seed)
    started_s = time.monotonic()
    alerts, last_ms, flagged = score(bundle, polls)
    opened = [episode.since_ms for episode in episodes_of(alerts, last_ms)]
    young = sum(since_ms < START_MS + (case.clean_s + YOUNG_HOURS * 3600) * 1000 for since_ms in opened)
    count = hours * 3600 * EVENTS_PER_S
    print(
        f"{hours:g} healthy hours, seed {seed}: {count:,.0f} events, {flagged} flagged ({flagged / count:.1e} of them, "
        f"promised {bundle.alerting.alarm_rate:.1e}), {counted(len(opened), 'alert')}: {len(opened) / hours:.2f} "
        f"an hour, promised at most {read_budget(case.alarms).alarms:g}; {young} in the first {YOUNG_HOURS:g} hours; "
        f"{(time.monotonic() - started_s):.0f} s",
        flush=True,
    )


def _polls(stream: Iterator[Event]) -> Iterator[list[Record]]:
    offset = 0
    while chunk := list(islice(stream, POLL)):
        yield [Record("ecg", 0, offset + i, 1 << 44, None, msgspec.json.encode(event)) for i, event in enumerate(chunk)]
        offset += len(chunk)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--feeds", choices=list(FEEDS), nargs="+", default=list(FEEDS))
    parser.add_argument("--week", action="store_true")
    parser.add_argument("--hours", type=float, default=WEEK_HOURS)
    arguments = parser.parse_args()
    if arguments.week:
        for seed in arguments.seeds:
            healthy(seed, arguments.hours)
        return
    for case in CASES:
        if case.feed in arguments.feeds:
            judge_feed(case, arguments.seeds)


if __name__ == "__main__":
    main()
