"""The alerter: committed alerts in, POSTs to a webhook out; in order per key, at least once.

A loop in one thread takes records, starts what is due, settles what came back, and commits; the
:class:`~streamlstm.adapters.webhook.Courier` sends in another. What to do when is decided in
:mod:`streamlstm.core.delivery`.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from streamlstm.adapters.webhook import Courier
from streamlstm.core.commit import Commit, Output
from streamlstm.core.delivery import LONGEST_RETRY_AFTER_S, DeadLetter, Delivery, Outcome, Policy, Schedule, Verdict
from streamlstm.core.feedback import LONGEST_MUTE_MS, Mutes
from streamlstm.core.feedback import decode as decode_feedback
from streamlstm.core.log import EventLog, NewRecord, Record, ScorerSession
from streamlstm.core.observer import NOBODY, Observer
from streamlstm.core.record import decode_alert
from streamlstm.core.topic import alerts_topic, dead_letters_topic, feedback_topic
from streamlstm.core.trace import trace_headers
from streamlstm.errors import LogUnavailable, TopicMissing
from streamlstm.services.follow import Follower, since
from streamlstm.services.instance import instance_name
from streamlstm.services.log_url import open_log
from streamlstm.services.metrics import alerter_observer
from streamlstm.services.observed import observed
from streamlstm.services.outage import Outage
from streamlstm.services.receiver import webhook_of
from streamlstm.services.settings import AlertSettings
from streamlstm.services.stop import stop_on_signals

TICK_S = 0.1  # how long a new alert, or one whose wait is over, may go unseen
TOPIC_WAIT_S = 1.0
GRACE_S = 5.0  # for requests under way when asked to stop; they are sent again if they take longer
MUTES_EVERY_S = 1.0  # how long a mute may go unseen
MUTES_AT_ONCE = 1_000
KEEP_ALIVE_S = 1.0  # between polls with the window full: partitions come and go, and a silent member is dropped

logger = structlog.get_logger()


class Sender(Protocol):
    """What sends deliveries and tells their outcomes later; :class:`Courier` is the real one."""

    def start(self, delivery: Delivery) -> None:
        """Begin to send."""
        ...

    def outcomes(self, timeout_s: float) -> list[tuple[Delivery, Outcome]]:
        """Return the outcomes since the last call; waits up to ``timeout_s`` for the first."""
        ...


@dataclass
class Totals:
    """What an alerter did since it started."""

    delivered: int = 0
    failed_tries: int = 0
    dead_letters: int = 0
    skipped: int = 0
    muted: int = 0


def deliver(settings: AlertSettings) -> Totals:
    """Deliver a topic's alerts until a signal stops it; see :func:`run`."""
    webhook = webhook_of(settings, os.environ)
    logger.info("receiver", host=webhook.url.host, template=webhook.template, signed=bool(webhook.secrets))
    with (
        alerter_observer(settings, _source(settings)) as observer,
        instance_name(settings.instance, settings.group) as instance,
        stop_on_signals() as stop,
    ):
        log = open_log(settings, instance=instance, stuck_after_s=settings.give_up_after_s)
        try:
            with Courier(webhook, settings.connections) as courier:
                return run(log, courier, settings, stop, observer=observer)
        finally:
            log.close()


def run(
    log: EventLog,
    sender: Sender,
    settings: AlertSettings,
    stop: threading.Event,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    rng: Callable[[], float] = random.random,
    observer: Observer = NOBODY,
) -> Totals:
    """Deliver the alerts of an open log until ``stop`` is set, or all there are, or all dead letters there are."""
    session, outage = None, Outage(settings.give_up_after_s, stop.wait, observer)
    while session is None and not stop.is_set():
        try:
            session = _open_session(log, settings, stop)
        except LogUnavailable as error:
            outage.wait(error)
    if session is None:
        return Totals()
    try:
        alerter = _Alerter(log, observed(session, observer), sender, settings, clock, wall_clock, rng, observer)
        alerter.run_until(stop)
    finally:
        session.close()
    logger.info("stopped", waiting=alerter.schedule.waiting, **vars(alerter.totals))
    return alerter.totals


def _source(settings: AlertSettings) -> str:
    """Return the topic to deliver from."""
    alerts = alerts_topic(settings.topic)
    return dead_letters_topic(alerts) if settings.resend_dead_letters else alerts


def _open_session(log: EventLog, settings: AlertSettings, stop: threading.Event) -> ScorerSession | None:
    """Open a session on the topic to deliver from, once it exists; None if asked to stop before."""
    alerts = alerts_topic(settings.topic)
    dead_letters = dead_letters_topic(alerts)
    partitions = _await_topic(log, alerts, settings, stop)
    if partitions == 0:
        return None
    log.create_topic(dead_letters, partitions, settings.retention_s)
    topic = _source(settings)
    session = log.open_session(topic, settings.group)
    logger.info("delivering", topic=topic, group=settings.group)
    return session


def _await_topic(log: EventLog, topic: str, settings: AlertSettings, stop: threading.Event) -> int:
    """Return the topic's partitions once it exists; 0 if asked to stop before."""
    told = False
    while not stop.is_set():
        try:
            return log.topic(topic).partitions
        except TopicMissing:
            if settings.until_end or settings.resend_dead_letters:
                raise
            if not told:
                logger.info("waiting for the topic, which `streamlstm score` makes", topic=topic)
            told = True
            stop.wait(TOPIC_WAIT_S)
    return 0


class FollowedMutes:
    """Which keys people have muted, read from the feedback topic now and then."""

    def __init__(self, log: EventLog, topic: str) -> None:
        self._log, self._topic = log, feedback_topic(topic)
        self._mutes = Mutes()
        self._follower: Follower | None = None
        self._read_s = -math.inf

    def follow(self, now_s: float, wall_ms: int) -> None:
        """Take in what is new, unless that was done just now."""
        if now_s - self._read_s < MUTES_EVERY_S:
            return
        if self._follower is None:
            self._follower = Follower(self._topic, since(wall_ms - LONGEST_MUTE_MS))
        while records := self._follower.read(self._log, MUTES_AT_ONCE):
            for record in records:
                with suppress(msgspec.MsgspecError):  # not ours: whatever it is, it mutes nothing
                    self._mutes.take(decode_feedback(record.value))
        self._mutes.forget_ended(wall_ms)
        self._read_s = now_s

    def muted(self, record: Record, wall_ms: int) -> bool:
        """Say whether the key of an alert's record is muted."""
        key = (record.key or b"").decode(errors="replace")
        return self._mutes.until_ms((record.partition, key), wall_ms) is not None


class _Alerter:
    """One run: the schedule, and what moves records in and out of it."""

    def __init__(
        self,
        log: EventLog,
        session: ScorerSession,
        sender: Sender,
        settings: AlertSettings,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        rng: Callable[[], float],
        observer: Observer,
    ) -> None:
        self.log, self.session, self.sender, self.settings = log, session, sender, settings
        self.clock, self.wall_clock, self.observer = clock, wall_clock, observer
        policy = Policy(settings.window, settings.connections, settings.tries, settings.dead_letter_after_s)
        self.schedule = Schedule(policy, rng)
        self.totals = Totals()
        self.ends: tuple[float, ...] = ()  # per partition, with --resend-dead-letters
        self.mutes = FollowedMutes(log, settings.topic)
        self.rewound = True
        self.polled_s = clock()
        self.claims: dict[int, int] = {}
        self.down_since_s: float | None = None
        self.started_s: dict[int, float] = {}  # of what is under way

    def run_until(self, stop: threading.Event) -> None:
        """Run until ``stop`` is set, or the end of the topic if the settings say so."""
        resend = self.settings.resend_dead_letters
        if resend:
            self.ends = self.log.topic(dead_letters_topic(alerts_topic(self.settings.topic))).end_offsets
        outage = Outage(self.settings.give_up_after_s, stop.wait, self.observer)
        while not stop.is_set():
            try:
                self._rewind()
                at_end = self._take()  # before the commit: only a poll brings a lost claim back
                self._commit()
                outage.over()
            except LogUnavailable as error:
                self.rewound = at_end = False
                outage.wait(error)
            if at_end and self.schedule.idle and (resend or self.settings.until_end) and self._nothing_left():
                return
            for delivery in self.schedule.due(self.clock()):
                self.sender.start(delivery)
                self.started_s[id(delivery)] = self.clock()
            self._settle()
        self._finish()

    def _rewind(self) -> None:
        """Go back to what is committed, after a fault or a poll that was thrown away."""
        if not self.rewound:
            self.session.rewind()
            self._follow_claims()  # those that went cannot be committed, and a poll that gives them back comes later
            self.rewound = True

    def _take(self) -> bool:
        """Take as many records as there is room for; return whether there were none left."""
        room, now_s = self.schedule.room(), self.clock()
        if room <= 0:
            if now_s - self.polled_s >= KEEP_ALIVE_S:
                self.session.poll(0, 0.0)
                self._follow_claims()
                self.polled_s = now_s
            return False
        self.polled_s = now_s
        if not self.settings.resend_dead_letters:
            self.mutes.follow(now_s, self._wall_ms())
        while records := self._poll(room):
            taken = [self._take_one(record) for record in records if not self._after_end(record)]
            if any(taken):  # else all were taken before the session was rewound
                return False
        return True

    def _poll(self, room: int) -> Sequence[Record]:
        records = self.session.poll(room, 0.0)
        self._follow_claims()
        return records

    def _follow_claims(self) -> None:
        """Drop what waits of partitions that another alerter may have now: it sends what is not committed."""
        claims = dict(self.session.claims())
        self.schedule.drop({p for p, number in self.claims.items() if claims.get(p) != number})
        self.claims = claims

    def _nothing_left(self) -> bool:
        lag = self.session.lag()
        return bool(lag) and not any(lag.values())

    def _take_one(self, record: Record) -> bool:
        muted = self.mutes.muted(record, self._wall_ms()) and not _resolves(record)
        unwanted = self._unwanted(record)
        taken = self.schedule.take(record, skip=muted or unwanted)
        self.totals.skipped += unwanted and taken
        self.totals.muted += muted and not unwanted and taken
        return taken

    def _wall_ms(self) -> int:
        return int(self.wall_clock() * 1000)

    def _after_end(self, record: Record) -> bool:
        return self.settings.resend_dead_letters and record.offset >= self.ends[record.partition]

    def _unwanted(self, record: Record) -> bool:
        if self.settings.resend_dead_letters:
            return dict(record.headers).get("group") != self.settings.group.encode()
        oldest_s = self.wall_clock() - (self.settings.skip_older_than_s or math.inf)
        return record.timestamp_ms < oldest_s * 1000

    def _settle(self) -> None:
        """Wait a moment for outcomes, and take them in."""
        for delivery, outcome in self.sender.outcomes(TICK_S):
            now_s = self.clock()
            verdict = self.schedule.settle(delivery, outcome, now_s)
            self.observer.tried(delivery.record, outcome, now_s - self.started_s.pop(id(delivery)))
            self.totals.delivered += verdict == "delivered"
            self.totals.failed_tries += outcome.result == "failed"
            self.totals.dead_letters += verdict == "dead"
            _tell(delivery, outcome, verdict)
            self._tell_of_receiver(now_s)
        self.observer.waiting(self.schedule.waiting, self.schedule.breaker.down)

    def _tell_of_receiver(self, now_s: float) -> None:
        down = self.schedule.breaker.down
        if down and self.down_since_s is None:
            self.down_since_s = now_s
            logger.error("receiver is down: alerts wait, one at a time is tried", waiting=self.schedule.waiting)
        elif not down and self.down_since_s is not None:
            logger.info("receiver is up again", outage_s=round(now_s - self.down_since_s, 1))
            self.down_since_s = None

    def _commit(self) -> None:
        """Store what is delivered or dead.

        Letters sent again in vain go back to the topic they came from, which a session cannot write to: they
        are appended first, and may be there twice after a crash in between.
        """
        progress = self.schedule.progress()
        if not progress.offsets:
            return
        letters = [_letter(dead, self.settings.group) for dead in progress.dead_letters]
        if self.settings.resend_dead_letters and letters:
            topic = dead_letters_topic(alerts_topic(self.settings.topic))
            self.log.append(topic, [NewRecord(o.key, o.value, o.headers, o.partition) for o in letters])
            letters = []
        self.session.commit(Commit([], [], letters, {}, progress.offsets, {}))
        self.schedule.committed(progress.offsets.items())
        self.observer.given_up(progress.dead_letters)

    def _finish(self) -> None:
        """Wait a little for what is under way, and commit."""
        until_s = self.clock() + GRACE_S
        while self.schedule.under_way and self.clock() < until_s:
            self._settle()
        try:
            self._rewind()
            self._commit()
        except LogUnavailable as error:
            logger.warning("not committed; alerts delivered last will be sent again", error=str(error))


def _resolves(record: Record) -> bool:
    """Say whether an alert record ends its episode: at the receiver, too, whatever is muted."""
    try:
        return decode_alert(record.value).action == "resolved"
    except msgspec.MsgspecError:
        return False


def _letter(dead: DeadLetter, group: str) -> Output:
    """Return the record as it was, with the reason in headers, and the place it first came from."""
    record = dead.record
    before = dict(record.headers)
    headers = (
        ("reason", dead.reason.encode()),
        ("detail", dead.detail.encode()),
        ("group", group.encode()),
        ("topic", before.get("topic", record.topic.encode())),
        ("partition", before.get("partition", str(record.partition).encode())),
        ("offset", before.get("offset", str(record.offset).encode())),
        ("timestamp_ms", before.get("timestamp_ms", str(record.timestamp_ms).encode())),
    )
    return Output(record.partition, record.key, record.value, headers + trace_headers(record.headers))


def _tell(delivery: Delivery, outcome: Outcome, verdict: Verdict) -> None:
    """Log one line per outcome."""
    record = delivery.record
    place = {"partition": record.partition, "offset": record.offset, "answer": outcome.detail}
    if outcome.retry_after_s is not None:
        place["waits_s"] = round(min(outcome.retry_after_s, LONGEST_RETRY_AFTER_S))
    try:
        alert = decode_alert(record.value)
        place = {"id": alert.id, "action": alert.action, "key": alert.key, **place}
    except msgspec.MsgspecError:
        pass
    if verdict == "delivered":
        logger.info("alert delivered", **place)
    elif verdict == "dropped":
        logger.info("alert tried, but its partition has gone to another alerter", **place)
    elif verdict == "waiting":
        logger.warning("alert not delivered, will be sent again", failures=delivery.failures, **place)
    else:
        logger.error("alert given up, now a dead letter", failures=delivery.failures, **place)
