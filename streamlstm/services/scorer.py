"""The scorer: a topic in; scores, alerts and dead letters out, exactly once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import msgspec
import structlog

from streamlstm.adapters.bundle_files import read_bundle
from streamlstm.adapters.schema_files import read_schema
from streamlstm.core.budget import Promised
from streamlstm.core.bundle import Alerting, Bundle
from streamlstm.core.event import Parse
from streamlstm.core.log import EventLog, ScorerSession
from streamlstm.core.observer import NOBODY, Observer
from streamlstm.core.record import AlertRecord
from streamlstm.core.schema import StreamSchema
from streamlstm.core.scorer import Outcome, Scorer
from streamlstm.core.state import Arena
from streamlstm.core.topic import alerts_topic, dead_letters_topic, scores_topic
from streamlstm.core.why import why
from streamlstm.errors import BundleError, LogUnavailable
from streamlstm.services.collector import collected_seldom, give_back
from streamlstm.services.instance import instance_name
from streamlstm.services.log_url import open_log
from streamlstm.services.metrics import scorer_observer
from streamlstm.services.observed import observed
from streamlstm.services.outage import Outage
from streamlstm.services.pipeline import DEPTH, score_polled
from streamlstm.services.registry import parser_of
from streamlstm.services.settings import ScoreSettings
from streamlstm.services.stop import stop_on_signals
from streamlstm.services.totals import BadRecordCap, Totals

POLL_TIMEOUT_S = 1.0
REPORT_EVERY_S = 10.0

logger = structlog.get_logger()


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


def new_scorer(bundle: Bundle, settings: ScoreSettings, parse: Parse | None = None) -> Scorer:
    """Return a scorer with the settings that were given, and the bundle's for the others."""
    given = {name: value for name in Alerting.__struct_fields__ if (value := getattr(settings, name)) is not None}
    given["alarm_rate"] = promised_by(bundle, settings).alarm_rate
    return Scorer(
        bundle,
        alerting=msgspec.structs.replace(bundle.alerting, **given),
        max_keys=settings.max_keys,
        reset_foreign_states=settings.on_model_change == "reset",
        explain_all=settings.explain == "all",
        told=settings.scores,
        parse=parse,
    )


def promised_by(bundle: Bundle, settings: ScoreSettings) -> Promised:
    """Return what a bundle promises with these settings."""
    return bundle.promised(settings.alarm_rate, settings.alarms)


def compile_now(bundle: Bundle, settings: ScoreSettings) -> None:
    """Compile the scoring path, which an empty poll does; else a process without a cache, as in a new container, would
    do so with its first records: partitions would come to it and wait (measured: 20 s).
    """
    scorer = new_scorer(bundle, settings)
    scorer.score(scorer.read([]), {})


def score_topic(settings: ScoreSettings) -> Totals:
    """Score a topic until a signal stops it; see :func:`run`."""
    bundle = load_for(settings)
    with (
        scorer_observer(settings, settings.topic) as observer,
        instance_name(settings.instance, settings.group) as instance,
        stop_on_signals() as stop,
    ):
        compile_now(bundle, settings)
        log = open_log(settings, instance=instance, stuck_after_s=settings.give_up_after_s)
        try:
            with collected_seldom():
                return run(log, bundle, settings, stop, observer)
        finally:
            log.close()


def run(
    log: EventLog, bundle: Bundle, settings: ScoreSettings, stop: threading.Event, observer: Observer = NOBODY
) -> Totals:
    """Score the topic of an open log until ``stop`` is set, or its end with ``until_end``."""
    totals, outage = Totals(promised_by(bundle, settings).budget), Outage(settings.give_up_after_s, stop.wait, observer)
    session = None
    while session is None and not stop.is_set():
        try:
            session = _open_session(log, bundle, settings)
        except LogUnavailable as error:
            outage.wait(error)
    if session is not None:
        try:
            with ThreadPoolExecutor(1, "commit") as beside:
                _loop(observed(session, observer), bundle, settings, stop, totals, outage, observer, beside)
        finally:
            session.close()
    totals.tell("stopped")
    return totals


def _open_session(log: EventLog, bundle: Bundle, settings: ScoreSettings) -> ScorerSession:
    partitions = log.topic(settings.topic).partitions
    for topic in (scores_topic, alerts_topic, dead_letters_topic):
        log.create_topic(topic(settings.topic), partitions, settings.retention_s)
    session = log.open_session(settings.topic, settings.group)
    logger.info("scoring", topic=settings.topic, partitions=partitions, model=bundle.name, group=settings.group)
    return session


def _loop(
    session: ScorerSession,
    bundle: Bundle,
    settings: ScoreSettings,
    stop: threading.Event,
    totals: Totals,
    outage: Outage,
    observer: Observer,
    beside: Executor,
) -> None:
    cap, parse = BadRecordCap(settings.max_bad_records), parser_of(settings, bundle.schema)
    reported, reported_s = 0, time.monotonic()
    scorer: Claimed | None = None
    while not stop.is_set():
        try:
            if scorer is None:
                scorer = _resumed(session, bundle, settings, parse)
                cap.go_back()
                observer.restarted(bundle, promised_by(bundle, settings))
            records = session.poll(DEPTH * settings.poll_records, 0.0 if settings.until_end else POLL_TIMEOUT_S)
            scorer.follow(session)
            if records:
                score_polled(
                    session,
                    scorer.scorer,
                    records,
                    settings.poll_records,
                    beside,
                    check=cap.check,
                    stored=partial(_stored, scorer.scorer.arena, cap, totals, outage, observer),
                    stop=stop.is_set,
                )
            elif settings.until_end and _at_end(session):
                break
            outage.over()
        except LogUnavailable as error:
            scorer = None
            outage.wait(error)
            continue
        elapsed_s = time.monotonic() - reported_s
        if elapsed_s >= REPORT_EVERY_S and totals.events > reported:
            rate = (totals.events - reported) / elapsed_s
            totals.tell("progress", events_per_s=round(rate), keys_in_memory=len(scorer.scorer.arena))
            reported, reported_s = totals.events, time.monotonic()
            give_back()


def _stored(
    arena: Arena, cap: BadRecordCap, totals: Totals, outage: Outage, observer: Observer, outcome: Outcome
) -> None:
    """Count and tell what was stored."""
    outage.over()
    cap.commit(outcome)
    totals.add(outcome)
    tell_alerts(outcome.alerts)
    observer.scored(outcome, len(arena), arena.nbytes, arena.evicted)


def _at_end(session: ScorerSession) -> bool:
    lag = session.lag()
    return bool(lag) and not any(lag.values())


class Claimed:
    """A scorer that remembers nothing of a partition which another one may have scored since."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self._claims: dict[int, int] = {}

    def follow(self, session: ScorerSession) -> None:
        """Forget partitions that went, and take up those that came, as committed."""
        claims = dict(session.claims())
        if claims == self._claims:
            return
        for partition, number in self._claims.items():
            if claims.get(partition) != number:
                self.scorer.forget(partition)
        for partition, watermark_ms in session.watermarks().items():
            if self._claims.get(partition) != claims.get(partition):
                self.scorer.watermarks[partition] = watermark_ms
        self._claims = claims


def _resumed(session: ScorerSession, bundle: Bundle, settings: ScoreSettings, parse: Parse | None) -> Claimed:
    """Return a scorer that stands where the log does: at the start, and after the log was out of reach.

    It knows no key yet. A commit whose answer was lost may have been stored or not; so after an
    outage only what the log holds counts, and keys are loaded from it as after a restart.
    """
    session.rewind()
    return Claimed(new_scorer(bundle, settings, parse))


def tell_alerts(alerts: Iterable[AlertRecord]) -> None:
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
            **({"why": words} if (words := why(alert)) else {}),
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
