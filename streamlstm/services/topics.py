"""The topics of a scored stream on Kafka: make what is missing, and say what is wrong with what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from streamlstm.adapters.kafka.cluster import Cluster, TopicSettings
from streamlstm.adapters.kafka.config import SCHEME
from streamlstm.adapters.kafka.log import KafkaLog
from streamlstm.adapters.kafka.names import changelog_topic
from streamlstm.adapters.kafka.session import CHANGELOG
from streamlstm.core.topic import alerts_topic, dead_letters_topic, feedback_topic, scores_topic
from streamlstm.errors import LogError, SettingsError
from streamlstm.services.log_url import open_log
from streamlstm.services.settings import TopicsSettings

ROOM_FOR_HEADERS = 65_536  # a dead letter is the record it was, and headers that say why
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Wanted:
    """A topic that the product reads or writes, and what it is for."""

    name: str
    purpose: str
    compacted: bool = False
    letters: bool = False  # holds whole input records


@dataclass
class Finding:
    """A topic as it is, or as it was made, and what is wrong with it."""

    wanted: Wanted
    settings: TopicSettings | None
    made: bool = False
    problems: list[str] = field(default_factory=list)


def set_up_topics(settings: TopicsSettings, console: Console) -> None:
    """Make what is missing, check all, and print a table; raises :class:`LogError` if something is wrong."""
    log = open_log(settings)
    try:
        if not isinstance(log, KafkaLog):
            raise SettingsError(f"--log {settings.log}: only {SCHEME}… has topics to set up; SQLite makes its own")
        found = list(findings(log.cluster, settings))
    finally:
        log.close()
    _show(found, console)
    wrong = [finding.wanted.name for finding in found if finding.problems]
    if wrong:
        raise LogError(f"not as they should be: {', '.join(wrong)}")


def wanted_topics(topic: str, group: str) -> list[Wanted]:
    """Return the topics of an input topic, the input first."""
    alerts = alerts_topic(topic)
    return [
        Wanted(topic, "events in"),
        Wanted(scores_topic(topic), "scores"),
        Wanted(alerts, "alerts"),
        Wanted(dead_letters_topic(topic), "records that cannot be scored", letters=True),
        Wanted(dead_letters_topic(alerts), "alerts that cannot be delivered", letters=True),
        Wanted(feedback_topic(topic), "what people say of alerts"),
        Wanted(changelog_topic(topic, group), "states of the group", compacted=True),
    ]


def findings(cluster: Cluster, settings: TopicsSettings) -> Iterator[Finding]:
    """Yield each topic as it is, made if it was missing and this is no dry run, with what is wrong with it."""
    brokers = cluster.brokers()
    source: TopicSettings | None = None
    for wanted in wanted_topics(settings.topic, settings.group):
        found = cluster.settings(wanted.name) if cluster.exists(wanted.name) else None
        partitions = source.partitions if source else settings.partitions
        finding = Finding(wanted, found)
        if found is None and not settings.dry_run and partitions:
            _make(cluster, wanted, partitions, brokers, source, settings)
            finding.settings, finding.made = cluster.settings(wanted.name), True
        if finding.settings is None:
            finding.problems.append("missing" if source or settings.dry_run else "missing: say --partitions to make it")
        else:
            finding.problems += problems(wanted, finding.settings, source, brokers)
        source = source or finding.settings
        yield finding
        if source is None:
            return


def _make(
    cluster: Cluster,
    wanted: Wanted,
    partitions: int,
    brokers: int,
    source: TopicSettings | None,
    settings: TopicsSettings,
) -> None:
    replicas = settings.replicas or min(3, brokers)
    configs = {"min.insync.replicas": str(settings.min_insync or max(1, replicas - 1))}
    if wanted.compacted:
        configs |= CHANGELOG
    elif source:
        configs["retention.ms"] = str(-1 if settings.retention_s is None else int(settings.retention_s * 1000))
    if wanted.letters and source:
        configs["max.message.bytes"] = str(_largest(source) + ROOM_FOR_HEADERS)
    cluster.create(wanted.name, partitions, configs, replicas)


def problems(wanted: Wanted, found: TopicSettings, source: TopicSettings | None, brokers: int) -> list[str]:
    """Return what is wrong with a topic, each with what to do."""
    checks: list[Callable[[], Iterator[str]]] = [
        lambda: _partition_problems(found, source),
        lambda: _cleanup_problems(wanted, found.configs),
        lambda: _replica_problems(found, brokers),
        lambda: _size_problems(wanted, found, source),
    ]
    return [problem for check in checks for problem in check()]


def _partition_problems(found: TopicSettings, source: TopicSettings | None) -> Iterator[str]:
    if source and found.partitions < source.partitions:
        yield (
            f"{found.partitions} partitions, but the input has {source.partitions}: grow it with "
            f"`kafka-topics.sh --alter --partitions {source.partitions}`, and score under a new --group"
        )


def _cleanup_problems(wanted: Wanted, configs: Mapping[str, str]) -> Iterator[str]:
    policy = configs.get("cleanup.policy", "delete")
    if wanted.compacted and policy != "compact":
        yield f"cleanup.policy is {policy}: states would be lost with age; set it to compact"
    elif not wanted.compacted and "compact" in policy:
        yield f"cleanup.policy is {policy}: all but a key's last record would be lost; set it to delete"
    retention_ms = int(configs.get("retention.ms", -1))
    if not wanted.compacted and 0 <= retention_ms < DAY_MS:
        yield f"keeps records for {retention_ms / 3_600_000:.3g} h only: a scorer that is down for longer loses events"


def _replica_problems(found: TopicSettings, brokers: int) -> Iterator[str]:
    insync = int(found.configs.get("min.insync.replicas", 1))
    if insync > found.replicas:
        yield f"min.insync.replicas is {insync} with {found.replicas} replicas: nothing can be written"
    elif found.replicas == insync > 1:
        yield f"min.insync.replicas is {insync}, all of the replicas: one broker down, and nothing can be written"
    if brokers > 1 and (found.replicas == 1 or insync == 1):
        yield (
            f"{found.replicas} replicas, min.insync.replicas {insync}: what was committed can be lost with one broker; "
            "have at least 3 and 2"
        )
    if found.configs.get("unclean.leader.election.enable") == "true":
        yield "unclean.leader.election.enable is true: what was committed can be lost; set it to false"


def _size_problems(wanted: Wanted, found: TopicSettings, source: TopicSettings | None) -> Iterator[str]:
    if wanted.letters and source and _largest(found) < _largest(source) + ROOM_FOR_HEADERS:
        yield (
            f"max.message.bytes is {_largest(found)}: an input record of {_largest(source)} bytes that cannot be "
            f"scored would not fit, and stop the scorer; set it to {_largest(source) + ROOM_FOR_HEADERS}"
        )


def _largest(settings: TopicSettings) -> int:
    return int(settings.configs.get("max.message.bytes", 1_048_588))


def _show(findings: list[Finding], console: Console) -> None:
    table = Table(box=None)
    for column in ("topic", "for", "partitions", "replicas", "in sync", "cleanup", "kept", ""):
        table.add_column(column, justify="right" if column in ("partitions", "replicas", "in sync") else "left")
    table.columns[0].no_wrap = True
    for finding in findings:
        verdict = "wrong" if finding.problems else "made" if finding.made else "ok"
        table.add_row(finding.wanted.name, finding.wanted.purpose, *_cells(finding.settings), verdict)
    console.print(table)
    for finding in findings:
        for problem in finding.problems:
            console.print(
                f"{finding.wanted.name}: {problem}", style="red", markup=False, highlight=False, soft_wrap=True
            )


def _cells(settings: TopicSettings | None) -> tuple[str, ...]:
    if settings is None:
        return ("-",) * 5
    retention_ms = int(settings.configs.get("retention.ms", -1))
    policy = settings.configs.get("cleanup.policy", "delete")
    kept = (
        "latest state" if policy == "compact" else "for ever" if retention_ms < 0 else f"{retention_ms / DAY_MS:.3g} d"
    )
    insync = settings.configs.get("min.insync.replicas", "1")
    return str(settings.partitions), str(settings.replicas), insync, policy, kept
