"""A member of a consumer group, by kafka-python.

Found in its source (3.0.12) and on a real broker: rebalance listeners run on the I/O thread, where any blocking call
raises, so they only note, pause and place; and a member that was dropped for not polling holds generation -1,
with which the broker would accept its commit: such a membership is never returned. A member that leads its group, and
joins it anew because its topic has grown or came back, forgets to look for the answer if a poll ends while it waits
(:meth:`PythonMember.membership`). While a heartbeat has no answer, a poll does not wait (:meth:`PythonMember.poll`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.admin import MemberToRemove
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import MemberState

from streamlstm.adapters.kafka.client import Changes, Committed
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.faults import Access, translated
from streamlstm.adapters.kafka.python_options import FETCH_BYTES, admin, client_options
from streamlstm.core.log import Record
from streamlstm.errors import LogUnavailable

SESSION_TIMEOUT_MS = 20_000  # of silence, and another process takes a dead one's partitions
MAX_POLL_INTERVAL_MS = 120_000
STABLE_MS = 1_000  # for the group's position in a partition; longer only where a transaction is open
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.05  # between polls while a heartbeat is not answered; doubled each time
LEAVE_MS = 5_000  # to leave a group: others get the partitions after the session time-out anyway


def displaced_by(config: KafkaConfig, access: Access, member_id: str) -> str | None:
    """Ask a group which other member has this instance's place; who was never a member has none to lose."""
    if not member_id:
        return None
    with translated(config, f"look up group {access.group!r}", access), closing(admin(config)) as client:
        members = client.describe_groups([access.group])[access.group]["members"]
    for member in members:
        if member["group_instance_id"] == config.instance and member["member_id"] != member_id:
            return f"{member['member_id']} at {member['client_host'].removeprefix('/')}, not {member_id}"
    return None


def leave_group(config: KafkaConfig, access: Access, member_id: str) -> None:
    """Let a static member leave its group; by itself it never does.

    The member id stands beside the instance, else it would be whoever has the instance's place now that leaves.
    """
    times_ms = {"bootstrap_timeout_ms": LEAVE_MS, "request_timeout_ms": LEAVE_MS}
    with translated(config, f"leave group {access.group!r}", access), closing(admin(config, **times_ms)) as client:
        client.remove_group_members(access.group, [MemberToRemove(member_id, config.instance, "stopped")])


class PythonMember(ConsumerRebalanceListener):  # type: ignore[misc]
    """A :class:`~streamlstm.adapters.kafka.client.Member`."""

    def __init__(self, config: KafkaConfig, group: str, topic: str) -> None:
        self._config, self._group, self._topic = config, group, topic
        self._access = Access(topic, group=group)
        self._given: set[int] = set()
        self._taken: set[int] = set()
        self._member_id = ""  # the last that was valid
        with translated(config, f"join group {group!r}", self._access):
            self._consumer = KafkaConsumer(
                **client_options(
                    config,
                    KafkaConsumer,
                    group_id=group,
                    group_instance_id=config.instance,  # a restart within the session time-out moves nothing
                    partition_assignment_strategy=[CooperativeStickyAssignor],  # others keep theirs on a rebalance
                    isolation_level="read_committed",  # also asks for positions that no open transaction may move
                    enable_auto_commit=False,
                    auto_offset_reset="none",  # skipping what retention took would be silent loss
                    session_timeout_ms=config.session_timeout_ms or SESSION_TIMEOUT_MS,
                    heartbeat_interval_ms=(config.session_timeout_ms or SESSION_TIMEOUT_MS) // 6,
                    max_poll_interval_ms=config.max_poll_interval_ms or MAX_POLL_INTERVAL_MS,
                    max_partition_fetch_bytes=FETCH_BYTES,
                    metadata_max_age_ms=10_000,  # new partitions are seen within this time
                )
            )
            try:
                self._subscribe()
            except BaseException:
                self._consumer.close(timeout_ms=0)
                raise

    def _subscribe(self) -> None:
        self._consumer.subscribe([self._topic], listener=self)
        # Else the group's leader may know no partitions of it yet, deal out none, and never look again (3.0.12).
        if not self._consumer.partitions_for_topic(self._topic):
            raise LogUnavailable(f"topic {self._topic!r} is not there yet, or {self._config.principal} may not see it")

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Pause what is new, and give it a place so that the client looks for none."""
        for place in assigned:
            self._consumer.pause(place)
            self._consumer.seek(place, 0)
            self._given.add(place.partition)
            self._taken.discard(place.partition)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Note what is gone."""
        for place in revoked:
            self._taken.add(place.partition)
            self._given.discard(place.partition)

    on_partitions_lost = on_partitions_revoked

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Return the next records; see the protocol."""
        consumer = self._consumer
        active = [] if max_records else list(consumer.assignment() - consumer.paused())
        consumer.pause(*active)
        try:
            with translated(self._config, f"read topic {self._topic!r}", self._access):
                polled = self._poll(max(1, max_records), time.monotonic() + timeout_s)
        finally:
            consumer.resume(*(place for place in active if place in consumer.assignment()))
        return [to_record(record) for records in polled.values() for record in records]

    def _poll(self, max_records: int, until_s: float) -> Mapping[TopicPartition, list[Any]]:
        """Poll in pieces, none longer than until the next heartbeat is due.

        From then until it is answered the client polls without a pause (3.0.12): where a broker hangs, more
        than a thousand times a second, and each poll stays in memory until the answer comes.
        """
        consumer, pause_s = self._consumer, FIRST_PAUSE_S
        while True:
            left_s = max(until_s - time.monotonic(), 0.0)
            stable = consumer.group_metadata().state is MemberState.STABLE  # else it waits by itself, for the group
            due_s = consumer._coordinator.time_to_next_heartbeat() if stable else math.inf
            polled = consumer.poll(timeout_ms=1000 * min(left_s, due_s), max_records=max_records)
            if polled or left_s == 0.0:
                return polled  # type: ignore[no-any-return]
            if due_s == 0.0:
                time.sleep(min(left_s, pause_s))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def changes(self) -> Changes:
        """Return what polls gave and took since this was last asked."""
        changes = Changes(self._given, self._taken)
        self._given, self._taken = set(), set()
        return changes

    def membership(self) -> object | None:
        """Return a snapshot of the membership, or None while there is no valid one.

        While it joins, the client is told that it is to join: it takes a partition that it has just dealt out for one
        that it has, no longer wants to join, and would be of no generation for ever (3.0.12).
        """
        metadata = self._consumer.group_metadata()
        if metadata.state is MemberState.REBALANCING:
            self._consumer._coordinator.request_rejoin()
        if not (metadata.generation_id > 0 and metadata.member_id and metadata.state is MemberState.STABLE):
            return None
        self._member_id = metadata.member_id
        return metadata  # type: ignore[no-any-return]

    def displaced_by(self) -> str | None:
        """Ask the group who has this instance's place.

        Not while this one joins: it may have a new name there that it has not heard yet, and it is told if it may not.
        """
        metadata = self._consumer.group_metadata()
        if metadata.state is not MemberState.STABLE:
            return None
        return displaced_by(self._config, self._access, metadata.member_id)

    def committed(self, partitions: Iterable[int]) -> Mapping[int, Committed]:
        """Return the group's committed positions."""
        found = {}
        for partition in partitions:
            with translated(self._config, f"read the positions of group {self._group!r}", self._access):
                position = self._consumer.committed(
                    TopicPartition(self._topic, partition), metadata=True, timeout_ms=STABLE_MS
                )
            if position is not None and position.offset >= 0:
                note = (position.metadata or "").rstrip("\0")  # confluent-kafka writes the string's end too
                found[partition] = Committed(position.offset, note)
        return found

    def seek(self, partition: int, offset: int) -> None:
        """Continue a partition at an offset."""
        self._consumer.seek(TopicPartition(self._topic, partition), offset)

    def position(self, partition: int) -> int:
        """Return the offset that comes next."""
        return int(self._consumer.position(TopicPartition(self._topic, partition), timeout_ms=5_000))

    def resume(self, partition: int) -> None:
        """Let polls return records of a partition."""
        self._consumer.resume(TopicPartition(self._topic, partition))

    def reachable(self) -> None:
        """Ask for an end offset; see the protocol."""
        with translated(self._config, f"reach topic {self._topic!r}", self._access):
            self._consumer.end_offsets([TopicPartition(self._topic, 0)], timeout_ms=5_000)

    def close(self, *, leave: bool) -> None:
        """Close, and leave the group if asked to."""
        try:
            if leave and self._member_id:
                leave_group(self._config, self._access, self._member_id)
        finally:
            self._consumer.close(timeout_ms=5_000)


def to_record(record: Any) -> Record:
    """Return a record of the client's as ours."""
    return Record(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value or b"",  # a deleted value reads as an empty one
        # and an absent header as well; most records have none, and to find that out so costs a third of this
        tuple((name, value or b"") for name, value in record.headers) if record.headers else (),
    )
