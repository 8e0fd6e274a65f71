"""Checks before a deployment: what `streamlstm score` and `streamlstm alert` would meet, without doing their work.

Nothing is written, no group is joined, and the receiver is sent no byte of HTTP.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from rich.console import Console

from streamlstm.adapters.kafka.faults import Denied
from streamlstm.adapters.kafka.log import KafkaLog
from streamlstm.adapters.kafka.names import changelog_topic, group_id
from streamlstm.adapters.kafka.restore import to_state
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.adapters.webhook import connect
from streamlstm.core.bundle import Bundle
from streamlstm.core.log import EventLog
from streamlstm.core.scorer import Scorer
from streamlstm.core.topic import alerts_topic, dead_letters_topic, scores_topic
from streamlstm.errors import BundleError, LogError, SettingsError, StreamlstmError, TopicMissing
from streamlstm.services.log_url import open_log
from streamlstm.services.receiver import webhook_of
from streamlstm.services.scorer import load_for, promised_by
from streamlstm.services.settings import AlertSettings, ReceiverSettings, ScoreSettings, TopicsSettings
from streamlstm.services.topics import findings
from streamlstm.services.wording import counted

LAST_RECORDS = 50  # of each partition, to see whose states there are
HANGS_AFTER_S = 25.0  # a transaction of ours ends within 10, or brokers, which look every 10, end it


class Check(NamedTuple):
    """What was looked at, and what was found; ``wrong`` says what to do and is empty if all is well."""

    what: str
    found: str
    wrong: str = ""


def check(
    settings: ScoreSettings, receiver: ReceiverSettings, environment: Mapping[str, str], console: Console
) -> None:
    """Print a line per check; raises :class:`StreamlstmError` if one of them failed."""
    if settings.log is None:
        raise SettingsError("give --log URL: there is nothing to check for a file that is scored once")
    checks = []
    for found in _checks(settings, receiver, environment):
        checks.append(found)
        mark, style = ("wrong", "red") if found.wrong else ("ok", None)
        line = f"{mark:<6}{found.what:<13}{found.wrong or found.found}"
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    failed = sum(bool(found.wrong) for found in checks)
    if failed:
        raise StreamlstmError(f"{failed} of {counted(len(checks), 'check')} failed")


def _checks(settings: ScoreSettings, receiver: ReceiverSettings, environment: Mapping[str, str]) -> Iterator[Check]:
    bundle: Bundle | None = None
    try:
        bundle = load_for(settings)
        promise = promised_by(bundle, settings)
        held_out = bundle.report.get("calibration_events")  # the report is for people: a bundle may have none
        far = "" if held_out is None else promise.extrapolated(held_out)
        alarms = f"at most {promise.budget}" + (f" ({far})" if far else "")
        yield Check("bundle", f"{settings.model}, digest {bundle.name}; alarms: {alarms}")
    except (StreamlstmError, OSError) as error:
        yield Check("bundle", "", str(error))
    yield from _log_checks(settings, bundle)
    if receiver.webhook is not None:
        yield _guarded("webhook", lambda: _reach(settings, receiver, environment))


def _guarded(what: str, look: Callable[[], str]) -> Check:
    """Return what a look found, or the sentence with which it failed."""
    try:
        return Check(what, look())
    except (StreamlstmError, OSError) as error:
        return Check(what, "", str(error))


def _log_checks(settings: ScoreSettings, bundle: Bundle | None) -> Iterator[Check]:
    try:
        log = open_log(settings)
    except (StreamlstmError, OSError) as error:
        yield Check("log", "", str(error))
        return
    try:
        reached = _guarded("log", lambda: f"{settings.log} answers, {counted(len(log.topics()), 'topic')} to be seen")
        yield reached
        if reached.wrong:
            return
        if isinstance(log, KafkaLog):
            yield from _kafka_checks(log, settings)
        else:
            yield _guarded("topics", lambda: _sqlite_topics(log, settings.topic))
            yield _guarded("permissions", lambda: _sqlite_writable(log))
        if bundle is not None:
            yield _guarded("states", lambda: _states(log, settings, bundle))
    finally:
        log.close()


def _sqlite_topics(log: EventLog, topic: str) -> str:
    count = log.topic(topic).partitions
    for output in (scores_topic(topic), alerts_topic(topic), dead_letters_topic(topic)):
        try:
            found = log.topic(output).partitions
        except TopicMissing:
            continue  # score makes it
        if found != count:
            raise LogError(f"topic {output!r} has {found} partitions, {topic!r} has {count}: use another topic")
    return f"{topic} with {counted(count, 'partition')}"


def _sqlite_writable(log: EventLog) -> str:
    assert isinstance(log, SqliteLog)
    with log.transaction():
        return f"{log.path} can be written to"


def _kafka_checks(log: KafkaLog, settings: ScoreSettings) -> Iterator[Check]:
    wanted = TopicsSettings(log=settings.log or "", topic=settings.topic, group=settings.group, dry_run=True)
    try:
        for finding in findings(log.cluster, wanted):
            again = f": `streamlstm topics --log {settings.log} --topic {settings.topic}` makes it"
            wrong = "; ".join(p + (again if p.startswith("missing") else "") for p in finding.problems)
            name = finding.wanted.name
            yield Check("topic", f"{name} ({finding.wanted.purpose})", f"{name}: {wrong}" if wrong else "")
    except Denied as error:
        yield Check("topic", f"settings not looked at: {error}")
    except LogError as error:
        yield Check("topic", "", str(error))
    for what, operations in _needed(settings).items():
        yield _guarded("permission", lambda w=what, o=operations: _allowed(log, w, o))  # type: ignore[misc]
    yield _guarded("permission", lambda: _transactional(log, settings))
    yield _guarded("transactions", lambda: _none_hangs(log, settings))


def _needed(settings: ScoreSettings) -> dict[str, tuple[str, ...]]:
    """Return the operations that a scorer needs, by topic; the group's id stands for the group."""
    topic, group = settings.topic, settings.group
    return {
        topic: ("READ",),
        scores_topic(topic): ("WRITE",),
        alerts_topic(topic): ("WRITE",),
        dead_letters_topic(topic): ("WRITE",),
        changelog_topic(topic, group): ("READ", "WRITE"),
        group_id(topic, group): ("READ",),
    }


def _allowed(log: KafkaLog, name: str, operations: tuple[str, ...]) -> str:
    kind = "group" if "@" in name else "topic"
    allowed = log.cluster.group_operations(name) if kind == "group" else log.cluster.topic_operations(name)
    if allowed is None:
        return f"group {name!r} is not there yet; whether it may be read (ACL Read), its first member will see"
    missing = [operation.capitalize() for operation in operations if operation not in allowed]
    if missing:
        raise LogError(f"give this user the permission (ACL) {' and '.join(missing)} on {kind} {name!r}")
    return f"{' and '.join(operation.capitalize() for operation in operations)} on {kind} {name!r}"


def _transactional(log: KafkaLog, settings: ScoreSettings) -> str:
    log.try_transactions(settings.topic, settings.group)
    return f"Write on transactional id '{group_id(settings.topic, settings.group)}@…'"


def _none_hangs(log: KafkaLog, settings: ScoreSettings) -> str:
    """Look for transactions that stay open for longer than one of a scorer can."""
    written = [name for name, operations in _needed(settings).items() if "WRITE" in operations]
    topics = [topic for topic in written if log.cluster.may_see(topic)]

    def found() -> set[tuple[str, int, int]]:
        return {(topic, *place) for topic in topics for place in log.cluster.open_since(topic).items()}

    still_open, until_s = found(), time.monotonic() + HANGS_AFTER_S
    while still_open and time.monotonic() < until_s:
        time.sleep(0.5)
        still_open &= found()
    if still_open:
        topic, partition, offset = min(still_open)
        raise LogError(
            f"topic {topic!r} partition {partition}: a transaction stays open from offset {offset} on, and hides all "
            "that came after it. A scorer or alerter ends its own when it starts: start all under the names "
            "(--instance) that they had. Only if that does not help, kafka-transactions.sh abort "
            f"--topic {topic} --partition {partition} --start-offset {offset}: what is in it is not kept then"
        )
    return "none stays open"


def _states(log: EventLog, settings: ScoreSettings, bundle: Bundle) -> str:
    """Look at some of the group's last states: a scorer refuses those that another bundle made."""
    scorer, seen = Scorer(bundle), 0
    for key, state in _last_states(log, settings):
        seen += 1
        try:
            scorer.read_state(key, state)
        except BundleError:
            if settings.on_model_change == "reset":
                return "another bundle made them; --on-model-change reset starts their keys anew"
            raise
    return f"{counted(seen, 'state')} looked at, all of this bundle" if seen else "none yet"


def _last_states(log: EventLog, settings: ScoreSettings) -> Iterator[tuple[tuple[int, bytes], bytes]]:
    if isinstance(log, KafkaLog):
        for key, value in _last_values(log, changelog_topic(settings.topic, settings.group)):
            if value:
                yield key, to_state(value)
        return
    keys = {key for key, _ in _last_values(log, scores_topic(settings.topic))}
    yield from log.read_states(settings.topic, settings.group, keys).items()


def _last_values(log: EventLog, topic: str) -> Iterator[tuple[tuple[int, bytes], bytes]]:
    try:
        info = log.topic(topic)
    except TopicMissing:
        return
    for partition, (start, end) in enumerate(zip(info.start_offsets, info.end_offsets, strict=True)):
        first = max(start, end - LAST_RECORDS)
        for record in log.read(topic, partition, first, LAST_RECORDS):
            yield (partition, record.key or b""), record.value


def _reach(settings: ScoreSettings, receiver: ReceiverSettings, environment: Mapping[str, str]) -> str:
    given = {field.name: getattr(receiver, field.name) for field in dataclasses.fields(receiver)}
    webhook = webhook_of(AlertSettings(log=settings.log or "", topic=settings.topic, **given), environment)
    fault = asyncio.run(connect(webhook))
    if fault:
        raise SettingsError(f"{webhook.url.host} cannot be reached: {fault}. Look at --webhook, name, port, firewall")
    return f"{webhook.url.host} takes connections; whether it takes alerts, only an alert can tell"
