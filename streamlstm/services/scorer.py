"""The scorer: a topic in; scores, alerts and dead letters out, exactly once. Or a file, once."""

from __future__ import annotations

import csv
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import IO

import msgspec
import structlog

from streamlstm.adapters.bundle_files import read_bundle
from streamlstm.adapters.files import read_records, read_schema
from streamlstm.core.bundle import Alerting, Bundle
from streamlstm.core.event import Rejection
from streamlstm.core.log import EventLog, Record, ScorerSession
from streamlstm.core.record import AlertRecord
from streamlstm.core.schema import StreamSchema
from streamlstm.core.scorer import Outcome, Scorer
from streamlstm.core.topic import alerts_topic, dead_letters_topic, scores_topic
from streamlstm.errors import BundleError, LogUnavailable
from streamlstm.services.log_url import open_log
from streamlstm.services.outage import Outage
from streamlstm.services.settings import ScoreSettings
from streamlstm.services.stop import stop_on_signals

POLL_TIMEOUT_S = 1.0
REPORT_EVERY_S = 10.0

logger = structlog.get_logger()


class DeadLetterWatch:
    """Warns when most records become dead letters: once, until most are scored again."""

    def __init__(self) -> None:
        self._events = 0
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, Rejection] = {}
        self._warned = False

    def add(self, outcome: Outcome) -> None:
        """Take a committed poll in."""
        self._events += len(outcome.poll.records)
        for rejection in outcome.rejections:
            self._reasons[rejection.reason] += 1
            self._examples.setdefault(rejection.reason, rejection)

    def tell(self) -> None:
        """Judge what came in since this was last called."""
        mostly = 2 * self._reasons.total() > self._events
        if mostly and not self._warned:
            ((reason, count),) = self._reasons.most_common(1)
            record, _, detail = self._examples[reason]
            logger.warning(
                "most records become dead letters",
                dead_letters=self._reasons.total(),
                events=self._events,
                mostly=f"{reason} {count}",
                example=f"{record.topic} partition {record.partition} offset {record.offset}: {detail}",
            )
        self._warned = mostly
        self._events, self._reasons, self._examples = 0, Counter(), {}


@dataclass
class Totals:
    """What a scorer did since it started; ``reasons`` counts the dead letters by reason."""

    events: int = 0
    scored: int = 0
    dead_letters: int = 0
    opened: int = 0
    resolved: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    _watch: DeadLetterWatch = field(default_factory=DeadLetterWatch, repr=False, compare=False)

    def add(self, outcome: Outcome) -> None:
        """Count a committed poll."""
        self.events += len(outcome.poll.records)
        self.scored += len(outcome.scores)
        self.dead_letters += len(outcome.rejections)
        self.opened += sum(alert.action == "opened" for alert in outcome.alerts)
        self.resolved += sum(alert.action == "resolved" for alert in outcome.alerts)
        self.reasons.update(rejection.reason for rejection in outcome.rejections)
        self._watch.add(outcome)

    def tell(self, line: str, **more: object) -> None:
        """Log a line with the counts, and warn if most records since the last one became dead letters."""
        counts = {name: count for name, count in vars(self).items() if isinstance(count, int)}
        if self.reasons:
            more["dead_letter_reasons"] = ", ".join(f"{reason} {n}" for reason, n in self.reasons.most_common())
        logger.info(line, **counts, **more)
        self._watch.tell()


def load_for(settings: ScoreSettings) -> Bundle:
    """Read the bundle, and refuse it if it was not trained for the stream."""
    bundle = read_bundle(settings.model)
    if settings.stream is not None:
        stream = read_schema(settings.stream)
        if stream != bundle.schema:
            raise BundleError(
                f"{settings.model} does not fit {settings.stream}: {', '.join(_differences(stream, bundle.schema))}"
            )
    return bundle


def new_scorer(bundle: Bundle, settings: ScoreSettings) -> Scorer:
    """Return a scorer with the settings that were given, and the bundle's for the others."""
    given = {name: value for name in Alerting.__struct_fields__ if (value := getattr(settings, name)) is not None}
    return Scorer(
        bundle,
        alerting=msgspec.structs.replace(bundle.alerting, **given),
        max_keys=settings.max_keys,
        reset_foreign_states=settings.on_model_change == "reset",
    )


def score_topic(settings: ScoreSettings) -> Totals:
    """Score a topic until a signal stops it; see :func:`run`."""
    bundle = load_for(settings)
    log = open_log(settings.log or "")
    try:
        with stop_on_signals() as stop:
            return run(log, bundle, settings, stop)
    finally:
        log.close()


def run(log: EventLog, bundle: Bundle, settings: ScoreSettings, stop: threading.Event) -> Totals:
    """Score the topic of an open log until ``stop`` is set, or its end with ``until_end``."""
    partitions = log.topic(settings.topic).partitions
    for topic in (scores_topic, alerts_topic, dead_letters_topic):
        log.create_topic(topic(settings.topic), partitions, settings.retention_s)
    session = log.open_session(settings.topic, settings.group)
    try:
        logger.info("scoring", topic=settings.topic, partitions=partitions, model=bundle.name, group=settings.group)
        totals = _loop(session, bundle, settings, stop)
    finally:
        session.close()
    totals.tell("stopped")
    return totals


def score_poll(session: ScorerSession, scorer: Scorer, records: Sequence[Record]) -> Outcome:
    """Take one poll through the core and commit it; the scorer's state moves only after the commit."""
    poll = scorer.read(records)
    outcome = scorer.score(poll, session.load_states(scorer.missing(poll)))
    session.commit(scorer.commit_of(outcome))
    scorer.accept(outcome)
    return outcome


def _loop(session: ScorerSession, bundle: Bundle, settings: ScoreSettings, stop: threading.Event) -> Totals:
    totals, outage = Totals(), Outage(settings.give_up_after_s, stop.wait)
    reported, reported_s = 0, time.monotonic()
    scorer: Scorer | None = None
    while not stop.is_set():
        try:
            scorer = scorer or _resumed(session, bundle, settings)
            records = session.poll(settings.poll_records, 0.0 if settings.until_end else POLL_TIMEOUT_S)
            if records:
                outcome = score_poll(session, scorer, records)
                totals.add(outcome)
                _tell(outcome.alerts)
            elif settings.until_end:
                break
            outage.over()
        except LogUnavailable as error:
            scorer = None
            outage.wait(error)
            continue
        elapsed_s = time.monotonic() - reported_s
        if elapsed_s >= REPORT_EVERY_S and totals.events > reported:
            rate = (totals.events - reported) / elapsed_s
            totals.tell("progress", events_per_s=round(rate), keys_in_memory=len(scorer.arena))
            reported, reported_s = totals.events, time.monotonic()
    return totals


def _resumed(session: ScorerSession, bundle: Bundle, settings: ScoreSettings) -> Scorer:
    """Return a scorer that stands where the log does: at the start, and after the log was out of reach.

    It knows no key yet. A commit whose answer was lost may have been stored or not; so after an
    outage only what the log holds counts, and keys are loaded from it as after a restart.
    """
    session.rewind()
    scorer = new_scorer(bundle, settings)
    scorer.watermarks.update(session.watermarks())
    return scorer


def score_file(path: Path, settings: ScoreSettings, out: IO[str]) -> Totals:
    """Score a file once, as if it were a topic of one partition, and write one CSV row per event."""
    bundle = load_for(settings)
    scorer = new_scorer(bundle, replace(settings, max_keys=sys.maxsize))  # there is no log to evict to
    chunks = read_records(path, bundle.schema)
    first = next(chunks, [])  # a file that cannot be read is refused before anything is written
    writer = csv.writer(out)
    writer.writerow(["key", "time_ms", "offset", "status", "score", "tail_probability", "threshold", "alert"])
    totals = Totals()
    for records in chain([first], chunks):
        poll = scorer.read(records)
        outcome = scorer.score(poll, {})
        scorer.accept(outcome)
        totals.add(outcome)
        _write_rows(writer.writerow, outcome)
        _tell(outcome.alerts)
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


def _tell(alerts: Iterable[AlertRecord]) -> None:
    """Log one line per alert that opens or ends."""
    for alert in alerts:
        if alert.action == "updated":
            continue
        worst = max(alert.features, key=lambda feature: feature.share, default=None)
        logger.info(
            f"alert {alert.action}",
            key=alert.key,
            id=alert.id,
            event_time=_iso(alert.time_ms),
            peak_score=round(alert.peak_score, 2),
            tail_probability=None if alert.tail_probability is None else float(f"{alert.tail_probability:.2g}"),
            feature=worst.name if worst else None,
            events=alert.events,
            **({"reason": alert.reason} if alert.reason else {}),
        )


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _differences(stream: StreamSchema, bundle: StreamSchema) -> list[str]:
    """Say field by field how two schemas differ."""
    ours, theirs = stream.to_dict(), bundle.to_dict()
    return [
        f"{name} is {ours.get(name)!r} in the stream, {theirs.get(name)!r} in the bundle"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
