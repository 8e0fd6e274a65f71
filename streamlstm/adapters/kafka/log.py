"""The event log on Apache Kafka: for production. See ``session`` for how a poll becomes a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

from streamlstm.adapters.kafka import python_client
from streamlstm.adapters.kafka.client import Appender, Clients, Reader
from streamlstm.adapters.kafka.cluster import Cluster, check_name
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.names import Names, changelog_topic, group_id
from streamlstm.adapters.kafka.restore import to_state
from streamlstm.adapters.kafka.session import KafkaSession
from streamlstm.adapters.kafka.settle import Opener
from streamlstm.core.log import NewRecord, Record, TopicInfo, check_offset
from streamlstm.core.topic import DEAD_LETTERS
from streamlstm.errors import LogError

LETTER_BYTES = "2097152"  # of a dead letter: twice what an input record may have by default


class KafkaLog:
    """An :class:`~streamlstm.core.log.EventLog` on a Kafka cluster.

    ``on_step`` is called with the name of each step of a commit as it is done. A commit that takes
    ``stuck_after_s`` ends the process. ``clients`` carry the records; what is asked about topics goes
    through kafka-python.
    """

    def __init__(
        self,
        config: KafkaConfig,
        on_step: Callable[[str], None] = lambda _: None,
        stuck_after_s: float = 300.0,
        clients: Clients = python_client.CLIENTS,
    ) -> None:
        self._config, self._on_step, self._stuck_after_s, self._clients = config, on_step, stuck_after_s, clients
        self.cluster = Cluster(config)
        self._appender: Appender | None = None
        self._openers: dict[Names, Opener] = {}  # what one knows outlives a session that could not be opened
        self._readers: dict[str, Reader] = {}

    def create_topic(self, topic: str, partitions: int, retention_s: float | None = None) -> None:
        """Create the topic; one that exists must have as many partitions, and takes the retention."""
        check_name(topic, partitions)
        configs = {"retention.ms": str(-1 if retention_s is None else int(retention_s * 1000))}
        if not self.cluster.exists(topic):
            room = {"max.message.bytes": LETTER_BYTES} if topic.endswith(DEAD_LETTERS) else {}
            self.cluster.create(topic, partitions, configs | room)
        count = self.cluster.partitions(topic)
        if count != partitions:
            raise LogError(f"topic {topic!r} has {count} partitions, not {partitions}; keys would move between them")
        if retention_s is not None and self.cluster.configs(topic).get("retention.ms") != configs["retention.ms"]:
            self.cluster.configure(topic, configs)

    def topics(self) -> list[TopicInfo]:
        """Return all topics, by name."""
        return [self.topic(name) for name in self.cluster.names()]

    def topic(self, topic: str) -> TopicInfo:
        """Return one topic; raises :class:`TopicMissing` naming those that exist."""
        return self.cluster.info(topic)

    def append(self, topic: str, records: Sequence[NewRecord]) -> None:
        """Append records, each once (idempotent producer); they are on all in-sync replicas on return."""
        partitions = self.cluster.partitions(topic)
        for record in records:
            if record.partition is not None and not 0 <= record.partition < partitions:
                raise LogError(f"topic {topic!r} has {partitions} partitions; there is no partition {record.partition}")
        if self._appender is None:
            self._appender = self._clients.appender(self._config)
        self._appender.append(topic, records)

    def read(self, topic: str, partition: int, offset: int, max_records: int) -> list[Record]:
        """Return committed records from ``offset`` on; see the port."""
        count = self.cluster.partitions(topic)
        if not 0 <= partition < count:
            raise LogError(f"topic {topic!r} has no partition {partition}")
        start = self.cluster.starts(topic, [partition])[partition]
        end = self.cluster.ends(topic, [partition])[partition]
        check_offset(topic, partition, offset, start, end)
        found: list[Record] = []
        for batch in self._reader(topic).read({partition: offset}, {partition: end}):
            found += batch
            if len(found) >= max_records:
                break
        return found[:max_records]

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """Return the first offset taken at or after this time; see the port."""
        found = self.cluster.offsets(topic, [partition], timestamp_ms, committed=True)[partition]
        return found if found >= 0 else self.cluster.ends(topic, [partition])[partition]

    def read_states(
        self, topic: str, group: str, keys: Iterable[tuple[int, bytes]]
    ) -> Mapping[tuple[int, bytes], bytes]:
        """Return the committed states of these keys. Reads their partitions of the changelog from end to end."""
        wanted, changelog = set(keys), changelog_topic(topic, group)
        if not wanted or not self.cluster.exists(changelog):
            return {}
        partitions = sorted({partition for partition, _ in wanted})
        starts, ends = self.cluster.starts(changelog, partitions), self.cluster.ends(changelog, partitions)
        found: dict[tuple[int, bytes], bytes] = {}
        for batch in self._reader(changelog).read(starts, ends):
            for record in batch:
                place = (record.partition, record.key or b"")
                if place in wanted:
                    found[place] = record.value
        return {place: to_state(value) for place, value in found.items() if value}

    def open_session(self, topic: str, group: str) -> KafkaSession:
        """Join the group; partitions come with the polls."""
        names = Names(topic, group_id(topic, group), changelog_topic(topic, group), self.cluster.partitions(topic))
        opener = self._openers.setdefault(names, Opener(self._config, self._clients, self.cluster, names))
        with ExitStack() as opened:  # closed again if the rest cannot be: the caller tries anew
            member = self._clients.member(self._config, names.group, topic)
            opened.callback(member.close, leave=False)
            reader = self._clients.reader(self._config, names.changelog)
            opened.callback(reader.close)
            session = KafkaSession(
                names,
                self.cluster,
                member,
                reader,
                opener,
                self._on_step,
                self._stuck_after_s,
            )
            opened.pop_all()
        return session

    def try_transactions(self, topic: str, group: str) -> None:
        """Open a transactional producer under a name that no scorer has, and close it; raises if it may not be."""
        self._clients.transactions(self._config, f"{group_id(topic, group)}@check", topic).close()

    def close(self) -> None:
        """Disconnect."""
        for reader in self._readers.values():
            reader.close()
        if self._appender is not None:
            self._appender.close()
        self.cluster.close()

    def _reader(self, topic: str) -> Reader:
        if topic not in self._readers:
            self._readers[topic] = self._clients.reader(self._config, topic)
        return self._readers[topic]
