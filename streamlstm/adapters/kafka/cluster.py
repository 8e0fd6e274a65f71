"""Topics of a Kafka cluster: what there is, how it is set, and making what is missing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.admin import ConfigResource, KafkaAdminClient, OffsetSpec
from kafka.errors import TopicAlreadyExistsError
from kafka.protocol.consumer import IsolationLevel

from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.faults import Access, Denied, denied, translated
from streamlstm.adapters.kafka.python_options import admin
from streamlstm.core.log import TopicInfo
from streamlstm.errors import LogError, TopicMissing

WAIT_MS = 30_000


@dataclass(frozen=True)
class TopicSettings:
    """How a topic is set up: its partitions, replicas of each, and its configuration as Kafka names it."""

    partitions: int
    replicas: int
    configs: Mapping[str, str]


class Cluster:
    """Looks at topics, and makes them. Connects when first used."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._client: KafkaAdminClient | None = None

    @property
    def client(self) -> KafkaAdminClient:
        """The admin client under it."""
        if self._client is None:
            self._client = admin(self._config)
        return self._client

    def names(self) -> list[str]:
        """Return the names of all topics that this user may see, without Kafka's own."""
        with translated(self._config, "list topics"):
            topics = self.client.describe_topics()
        return sorted(topic["name"] for topic in topics if not topic["is_internal"])

    def partitions(self, topic: str) -> int:
        """Return the number of partitions; raises :class:`TopicMissing` naming the topics there are."""
        return len(self._described(topic)["partitions"])

    def offsets(self, topic: str, partitions: Iterable[int], spec: object, *, committed: bool) -> dict[int, int]:
        """Return first or next offsets per partition; ``committed`` leaves out what an open transaction may undo."""
        places = {TopicPartition(topic, partition): spec for partition in partitions}
        if not places:
            return {}
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        with translated(self._config, f"read the offsets of topic {topic!r}", Access(topic, "Describe")):
            found = self.client.list_partition_offsets(places, isolation_level=level, timeout_ms=WAIT_MS)
        return {place.partition: found[place].offset for place in places}

    def starts(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return the first offset kept, per partition."""
        return self.offsets(topic, partitions, OffsetSpec.EARLIEST, committed=False)

    def ends(self, topic: str, partitions: Iterable[int], *, committed: bool = True) -> dict[int, int]:
        """Return the next offset, per partition."""
        return self.offsets(topic, partitions, OffsetSpec.LATEST, committed=committed)

    def open_since(self, topic: str) -> dict[int, int]:
        """Return the offset of the first transaction that is open, per partition in which there is one."""
        partitions = range(self.partitions(topic))
        committed, ends = self.ends(topic, partitions), self.ends(topic, partitions, committed=False)
        return {partition: at for partition, at in committed.items() if at < ends[partition]}

    def info(self, topic: str) -> TopicInfo:
        """Return what the port wants to know of a topic."""
        partitions = range(self.partitions(topic))
        starts, ends = self.starts(topic, partitions), self.ends(topic, partitions)
        return TopicInfo(
            topic,
            tuple(starts[p] for p in partitions),
            tuple(ends[p] for p in partitions),
            self._retention_s(topic),
        )

    def _retention_s(self, topic: str) -> float | None:
        try:
            retention_ms = int(self.configs(topic).get("retention.ms", -1))
        except Denied:  # it is only for showing
            return math.nan
        return None if retention_ms < 0 else retention_ms / 1000

    def settings(self, topic: str) -> TopicSettings:
        """Return how a topic is set up."""
        partitions = self._described(topic)["partitions"]
        return TopicSettings(len(partitions), min(len(p["replica_nodes"]) for p in partitions), self.configs(topic))

    def configs(self, topic: str) -> dict[str, str]:
        """Return a topic's whole configuration."""
        with translated(self._config, f"read the configuration of topic {topic!r}", Access(topic, "DescribeConfigs")):
            found = self.client.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")["topic"][topic]
        if not found:  # kafka-python (3.0.12) does not look at the error that the broker answers
            raise denied(self._config, "DescribeConfigs", f"topic {topic!r}")
        return {name: str(entry["value"]) for name, entry in found.items()}

    def create(self, topic: str, partitions: int, configs: Mapping[str, str], replicas: int = -1) -> None:
        """Make a topic and wait until it can be used; one made by somebody else meanwhile is fine."""
        check_name(topic, partitions)
        wanted = {topic: {"num_partitions": partitions, "replication_factor": replicas, "configs": dict(configs)}}
        with translated(self._config, f"create topic {topic!r}", Access(topic, "Create")):
            try:
                self.client.create_topics(wanted, timeout_ms=WAIT_MS, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                self.client.wait_for_topics([topic], timeout_ms=WAIT_MS)

    def configure(self, topic: str, configs: Mapping[str, str]) -> None:
        """Change a topic's configuration."""
        with translated(self._config, f"configure topic {topic!r}", Access(topic, "AlterConfigs")):
            answer = self.client.alter_configs([ConfigResource("TOPIC", topic, configs=dict(configs))])
        said = str(answer["topic"][topic])  # an error comes as text
        if "TopicAuthorizationFailedError" in said:
            raise denied(self._config, "AlterConfigs", f"topic {topic!r}")
        if said != "OK":
            raise LogError(f"{self._config.url}: could not configure topic {topic!r}: {said}")

    def topic_operations(self, topic: str) -> set[str]:
        """Return what this user may do with a topic, as Kafka names it, READ or WRITE for example."""
        return set(self._described(topic)["authorized_operations"])

    def group_operations(self, group: str) -> set[str] | None:
        """Return what this user may do with a consumer group; None if there is no such group yet.

        Raises :class:`Denied` if this user may not know.
        """
        with translated(self._config, f"describe group {group!r}", Access(group=group)):
            operations = self.client.describe_groups([group])[group].get("authorized_operations")
        return None if operations is None else set(operations)

    def brokers(self) -> int:
        """Return the number of brokers that are up."""
        with translated(self._config, "describe the cluster"):
            return len(self.client.describe_cluster()["brokers"])

    def exists(self, topic: str) -> bool:
        """Say whether there is such a topic; raises :class:`Denied` if this user may not know."""
        try:
            self._described(topic)
        except TopicMissing:
            return False
        return True

    def may_see(self, topic: str) -> bool:
        """Say whether there is such a topic, as far as this user may know."""
        try:
            return self.exists(topic)
        except Denied:
            return False

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.close()

    def _described(self, topic: str) -> dict[str, Any]:
        with translated(self._config, f"look up topic {topic!r}", Access(topic, "Describe")):
            found = self.client.describe_topics([topic]) if topic else []
        for described in found:
            if described["name"] == topic and not described["error_code"]:
                return described  # type: ignore[no-any-return]
            if described["error_code"] == 29:  # Kafka's TOPIC_AUTHORIZATION_FAILED
                raise denied(self._config, "Describe", f"topic {topic!r}")
        names = self.names()
        known = f"there are {', '.join(names)}" if names else "there are no topics yet, or none this user may see"
        raise TopicMissing(f"{self._config.url} has no topic {topic!r}; {known}")


def check_name(topic: str, partitions: int) -> None:
    """Refuse what Kafka would refuse, in the same words as the SQLite log."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic):
        raise LogError(f"{topic!r} is no topic name: 1 to 249 of letters, digits, '.', '_' and '-'")
    if partitions < 1:
        raise LogError(f"topic {topic!r}: at least one partition is needed, not {partitions}")
