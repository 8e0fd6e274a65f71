"""A scorer's part in a consumer group: what a poll brings becomes a Kafka transaction, or a few.

::

    poll → membership as of now → for each transaction: (score) → begin → scores, alerts, dead letters → changed states
         → positions, fenced by that membership → commit → only then are tables and positions moved

A transaction is open only within :meth:`KafkaSession.commit`, partitions come and go only within
:meth:`KafkaSession.poll`: so a partition cannot leave in the middle of a commit, and a process
that slept through its dismissal is refused by the broker (KIP-447).
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager, suppress

import structlog

from streamlstm.adapters.kafka.claims import Claim, changed_states, check_offsets, watermark_after, watermark_of
from streamlstm.adapters.kafka.client import Committed, Member, Reader, Transactions
from streamlstm.adapters.kafka.cluster import Cluster
from streamlstm.adapters.kafka.faults import Denied
from streamlstm.adapters.kafka.names import Names
from streamlstm.adapters.kafka.restore import Limits, Restore, to_state
from streamlstm.adapters.kafka.settle import Opener
from streamlstm.adapters.kafka.watchdog import Watchdog, end_process
from streamlstm.core.commit import Commit
from streamlstm.core.log import Record, Standing, check_offset
from streamlstm.core.topic import alerts_topic, dead_letters_topic, scores_topic
from streamlstm.errors import Fenced, LogError, LogUnavailable

RESTORE_SLICE_S = 0.2  # between polls, which must come often enough to stay in the group
JOIN_S = 0.3  # a poll that waits for the group; what it gives is seen when the wait is over
UNSTABLE_AT_ONCE = 2  # positions waited for in one poll; each takes a second
CHANGELOG = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.2", "segment.ms": "3600000"}
REACHABLE_EVERY_S = 5.0  # an idle topic and a dead broker look alike until asked

logger = structlog.get_logger()


class KafkaSession:
    """A :class:`~streamlstm.core.log.ScorerSession` in a consumer group.

    ``opener`` connects a transactional producer, and ends what an earlier one of its name left open. ``on_step`` is
    called with the name of each step of a commit as it is done. ``on_stuck`` is called when a commit took
    ``stuck_after_s``: the client would wait for ever.
    """

    def __init__(
        self,
        names: Names,
        cluster: Cluster,
        member: Member,
        reader: Reader,
        opener: Opener,
        on_step: Callable[[str], None],
        stuck_after_s: float,
        on_stuck: Callable[[str], None] = end_process,
    ) -> None:
        self._names, self._cluster, self._member, self._reader = names, cluster, member, reader
        self._opener, self._on_step = opener, on_step
        self._transactions: Transactions | None = self._open()
        self._claims: dict[int, Claim] = {}
        self._wanted: set[int] = set()  # given to us, states not restored yet
        self._unstable: set[int] = set()  # of those wanted, in the last poll
        self._restore: Restore | None = None
        self._restoring: dict[int, Committed] = {}
        self._membership: object | None = None
        self._trusted: object | None = None  # the membership under which all claims stand where the group does
        self._claimed = 0
        self._heard_s = time.monotonic()
        self._changelog_seen = self._fenced = self._closed = False
        self._changelog_hidden: Denied | None = None
        self._watchdog = Watchdog(stuck_after_s, on_stuck)

    # Reading

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Return the next records of claimed partitions; claims come and go here."""
        self._check_open()
        self._open_anew_if_in_doubt()
        patience_s, self._membership = self._patience_s(timeout_s), None
        records = self._member.poll(max_records, patience_s)
        self._membership = self._member.membership()
        self._take_changes()
        self._check_claims()
        records = [record for record in records if record.partition in self._claims]
        for record in records:
            self._claims[record.partition].polled.append(record.offset)
        if self._membership is not None:
            if self._wanted and not self._restoring:
                self._begin_restore()
            if self._restoring:
                self._go_on_restoring()
        self._check_reachable(bool(records))
        return records

    def claims(self) -> Mapping[int, int]:
        """Return the claimed partitions, each with the number of its claim."""
        return {partition: claim.number for partition, claim in self._claims.items()}

    def standing(self) -> Standing:
        """Return whether the group has this member since the last poll, and which states are still to be read."""
        remaining = self._restore.remaining() if self._restore else {}
        return Standing(
            joined=self._membership is not None,
            restoring={**dict.fromkeys(self._wanted), **{p: remaining.get(p) for p in self._restoring}},
        )

    def lag(self) -> Mapping[int, int]:
        """Return how many offsets of each claimed partition are still to be polled; marks of transactions count."""
        ends = self._cluster.ends(self._names.topic, self._claims)
        return {partition: end - self._member.position(partition) for partition, end in ends.items()}

    def load_states(self, keys: Iterable[tuple[int, bytes]]) -> Mapping[tuple[int, bytes], bytes]:
        """Return the committed states of these keys, as far as they have one."""
        found = {}
        for partition, key in keys:
            claim = self._claims.get(partition)
            value = claim.table.values.get(key) if claim else None
            if value is not None:
                found[partition, key] = to_state(value)
        return found

    def watermarks(self) -> Mapping[int, int]:
        """Return the committed watermarks (ms) per claimed partition."""
        return {p: claim.watermark_ms for p, claim in self._claims.items() if claim.watermark_ms > 0}

    def _patience_s(self, timeout_s: float) -> float:
        """Return how long the next poll may wait.

        While the group is being rearranged, not less than :data:`JOIN_S`: kafka-python (3.0.12) throws away an answer
        of the group that arrives between two polls and joins anew, so that with short polls and work between
        them it never gets in, and keeps all others out.
        """
        if self._membership is None:
            return JOIN_S
        if self._restoring:
            return 0.0
        return timeout_s if self._claims and not self._wanted else min(timeout_s, JOIN_S)

    def _take_changes(self) -> None:
        changes = self._member.changes()
        if changes.taken or changes.given:
            logger.info("partitions", given=sorted(changes.given), taken=sorted(changes.taken), topic=self._names.topic)
        for partition in changes.taken | changes.given:
            self._claims.pop(partition, None)
            self._restoring.pop(partition, None)
            self._wanted.discard(partition)
        self._wanted |= changes.given

    def _check_claims(self) -> None:
        """Take claims up anew that do not stand where the group does, when the group was rearranged or they are new.

        kafka-python (3.0.12) does not say so if a member was dropped while it joined, and has its partitions
        again: another may have read them meanwhile.
        """
        if self._membership is None or self._membership == self._trusted:
            return
        found, _ = self._positions(self._claims)
        for partition, claim in list(self._claims.items()):
            position = found.get(partition)
            if position is None or position.offset != claim.next_offset:
                logger.warning("others may have read it, taken up anew", partition=partition, topic=self._names.topic)
                del self._claims[partition]
                self._wanted.add(partition)
        self._trusted = self._membership

    def _begin_restore(self) -> None:
        """Find out where the wanted partitions stand, and begin to read their states."""
        names, stable = self._names, self._stable()
        if not stable:
            return
        wanted = sorted(stable)
        self._check_partitions(wanted)
        committed = {partition: position for partition, position in stable.items() if position is not None}
        starts = self._cluster.starts(names.topic, wanted)
        ends = self._cluster.ends(names.topic, wanted, committed=False)
        new = {partition: Committed(starts[partition], "0") for partition in wanted if partition not in committed}
        for partition, position in committed.items():
            check_offset(names.topic, partition, position.offset, starts[partition], ends[partition])
        self._write_down(new)
        positions = {**committed, **new}
        limits = {partition: Limits(0, 0, 0) for partition in wanted}
        if self._changelog_exists():
            first = self._cluster.starts(names.changelog, wanted)
            end = self._cluster.ends(names.changelog, wanted, committed=False)
            limits = {p: Limits(first[p], end[p], positions[p].offset) for p in wanted}
        elif scored := [p for p, position in committed.items() if watermark_of(position) > 0]:
            raise LogError(
                f"topic {names.changelog!r} is gone, and with it the states of the events before offset "
                f"{committed[scored[0]].offset} of topic {names.topic!r} partition {scored[0]}: those after it would "
                "be scored as if nothing had been before. Use a new --group"
            )
        self._restore = Restore(self._reader, names.changelog, limits, self._committed_now)
        self._restoring = positions
        self._wanted.difference_update(wanted)

    def _stable(self) -> dict[int, Committed | None]:
        """Return the positions in wanted partitions, None where the group has none yet.

        One that an open transaction may move is left for the next poll: other partitions go on meanwhile.
        """
        found, unstable = self._positions(sorted(self._wanted, key=lambda p: (p in self._unstable, p)))
        if unstable and not self._unstable:
            logger.info("waiting for positions: a transaction is open", partitions=unstable, topic=self._names.topic)
        self._unstable = set(unstable)
        return found

    def _positions(self, partitions: Iterable[int]) -> tuple[dict[int, Committed | None], list[int]]:
        """Return the group's positions, None where it has none yet; and where an open transaction may move them. After
        a few of these the rest is not asked for."""
        found: dict[int, Committed | None] = {}
        unstable: list[int] = []
        for partition in partitions:
            try:
                found[partition] = self._member.committed([partition]).get(partition)
            except LogUnavailable:
                unstable.append(partition)
                if len(unstable) == UNSTABLE_AT_ONCE:
                    break
        return found, unstable

    def _committed_now(self, partition: int) -> int:
        position = self._member.committed([partition]).get(partition)
        return position.offset if position else 0

    def _changelog_exists(self) -> bool:
        """Say whether there are states to read. Who may not know has none, as an alerter, or writes none."""
        if not self._changelog_seen and self._changelog_hidden is None:
            try:
                self._changelog_seen = self._cluster.exists(self._names.changelog)
            except Denied as denied:
                self._changelog_hidden = denied
        return self._changelog_seen

    def _write_down(self, positions: Mapping[int, Committed]) -> None:
        """Commit where the group starts in a partition it has never read.

        Else retention could remove, unnoticed, what it has never yet read.
        """
        if positions:
            with self._transaction({}) as transactions:
                self._send_offsets(transactions, positions)

    def _go_on_restoring(self) -> None:
        assert self._restore is not None
        if not self._restore.step(RESTORE_SLICE_S):
            return
        for partition, position in self._restoring.items():  # those taken meanwhile are no longer among them
            self._claimed += 1
            table = self._restore.tables[partition]
            self._claims[partition] = Claim(self._claimed, position.offset, watermark_of(position), table)
            self._member.seek(partition, position.offset)
            self._member.resume(partition)
        self._restoring, self._restore, self._trusted = {}, None, None

    def _check_partitions(self, wanted: Sequence[int]) -> None:
        names = self._names
        for topic in names.outputs:
            if not self._cluster.may_see(topic):
                continue  # an alerter's session has no scores; the write will name what is missing
            count = self._cluster.partitions(topic)
            if count <= wanted[-1]:
                raise LogError(
                    f"topic {names.topic!r} has grown: its partition {wanted[-1]} has no counterpart in {topic!r} with "
                    f"its {count}. Keys move between partitions as a topic grows, and their states do not follow. "
                    "Make a new input topic; or grow the others too, and start under a new --group"
                )

    def _check_reachable(self, heard: bool) -> None:
        now_s = time.monotonic()
        if not heard and now_s - self._heard_s >= REACHABLE_EVERY_S:
            try:
                self._member.reachable()
            except LogUnavailable:
                with suppress(LogUnavailable):  # the first says it better
                    self._cluster.info(self._names.topic)  # a topic that was deleted is not waited for
                raise
            heard = True
        if heard:
            self._heard_s = now_s

    # Committing

    def commit(self, commit: Commit) -> None:
        """Store a poll in one transaction, or nothing of it."""
        self._check_open()
        check_offsets(self._names, self._claims, commit.offsets)
        topic, step = self._names.topic, self._on_step
        outputs = {
            "scores": (scores_topic(topic), commit.scores),
            "alerts": (alerts_topic(topic), commit.alerts),
            "dead_letters": (dead_letters_topic(topic), commit.dead_letters),
        }
        states = changed_states(commit, self._claims)
        positions = {
            partition: Committed(following, str(watermark_after(commit, self._claims, partition)))
            for partition, (_, following) in commit.offsets.items()
        }
        if any(states.values()) and not self._changelog_exists():
            if self._changelog_hidden is not None:  # there may be states in it, and they were not read
                raise self._changelog_hidden
            self._cluster.create(self._names.changelog, self._names.partitions, CHANGELOG)
        places = {to: {output.partition for output in written} for to, written in outputs.values()}
        places[self._names.changelog] = {partition for partition, changes in states.items() if changes}
        with self._transaction(places) as transactions:
            step("begin")
            for name, (to, written) in outputs.items():
                if written:
                    transactions.write(to, written)
                step(name)
            for partition, changes in states.items():
                if changes:
                    rows = ((partition, key, value, ()) for key, value in changes.items())
                    transactions.write(self._names.changelog, rows)
            step("states")
            self._send_offsets(transactions, positions)
            step("offsets")
        step("end")
        for partition, (_, following) in commit.offsets.items():
            claim = self._claims[partition]
            claim.table.apply(states.get(partition, {}))
            claim.watermark_ms = watermark_after(commit, self._claims, partition)
            claim.next_offset = following
            del claim.polled[: bisect_left(claim.polled, following)]

    def rewind(self) -> None:
        """Go back to what is committed; where that is in doubt, find it out anew from the cluster."""
        self._check_open()
        self._heard_s = -math.inf  # a poll that returns nothing is no sign of life
        self._wanted |= set(self._restoring)  # what broke off may be half of it
        self._restoring, self._restore = {}, None
        if self._transactions is None:
            self._transactions = self._open()
            self._wanted |= set(self._claims)
            self._claims.clear()
        for partition, claim in self._claims.items():
            self._member.seek(partition, claim.next_offset)
            claim.polled.clear()

    def close(self) -> None:
        """Leave the group, unless another process already has this one's place in it."""
        if self._closed:
            return
        self._closed = True
        with closing(self._watchdog), self._watchdog.watch("the end of a session"):
            with suppress(LogError):
                self._reader.close()
            if self._transactions is not None:
                self._transactions.close()
            try:
                self._member.close(leave=not self._fenced)
            except LogError as error:
                logger.warning(
                    "left without notice: others get the partitions after the session time-out", error=str(error)
                )

    @contextmanager
    def _transaction(self, places: Mapping[str, Set[int]]) -> Iterator[Transactions]:
        """Run a transaction that writes to these partitions of topics: all of the block, or nothing, or an outcome that
        :meth:`rewind` finds out.
        """
        self._open_anew_if_in_doubt()
        transactions = self._transactions
        if transactions is None:
            raise LogUnavailable("the last transaction's outcome is not known yet: rewind first")
        if self._membership is None:
            raise LogUnavailable(
                f"group {self._names.group!r} is being rearranged, or dropped this member for not polling in time: "
                "nothing of this poll is kept"
            )
        try:
            with self._watchdog.watch("a Kafka transaction"):
                transactions.begin(places)
                yield transactions
                transactions.commit()
        except Fenced as fenced:
            self._abandon(transactions)
            self._raise_if_displaced(fenced)
            raise LogUnavailable("a transaction took too long and was ended: nothing of it is kept") from fenced
        except BaseException:
            self._abandon(transactions)
            raise

    def _open(self) -> Transactions:
        try:
            return self._opener.open()
        except Fenced as fenced:
            self._raise_if_displaced(fenced)
            raise LogUnavailable("transactions could not be opened: ended from outside meanwhile") from fenced

    def _raise_if_displaced(self, fenced: Fenced) -> None:
        """Go on raising what refused a transaction if another process has this one's place; else it was late, or ended
        from outside."""
        if other := self._member.displaced_by():
            self._fenced = True
            raise Fenced(f"{fenced}. The place in group {self._names.group!r} has {other}") from fenced

    def _open_anew_if_in_doubt(self) -> None:
        """Begin anew where a broker was lost: it may have forgotten to end the last transaction everywhere."""
        if self._transactions is not None and self._opener.in_doubt():
            self._member.reachable()
            with self._watchdog.watch("the end of a Kafka producer"):
                self._transactions.close()
            self._transactions = None  # until it is opened anew, its outcome counts as unknown
            self._transactions = self._open()

    def _abandon(self, transactions: Transactions) -> None:
        """After a failed transaction: abort it and begin anew; opening the next one waits for its end."""
        self._transactions = None
        with self._watchdog.watch("the end of a failed Kafka transaction"):
            with suppress(LogError):
                transactions.abort()
            transactions.close()

    def _send_offsets(self, transactions: Transactions, positions: Mapping[int, Committed]) -> None:
        if positions:
            transactions.send_offsets(positions, self._membership)

    def _check_open(self) -> None:
        if self._closed or self._fenced:
            raise Fenced(f"group {self._names.group!r}: this session was closed; another may have its partitions")
