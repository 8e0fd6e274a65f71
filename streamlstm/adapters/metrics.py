"""What scorer and alerter both show to Prometheus.

A registry of its own for each, never the library's global one. Series of a partition are removed as soon as it is no
longer claimed: its next owner shows it. No label holds a key, or anything else that a producer chooses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from streamlstm import __version__
from streamlstm.adapters.health import Health
from streamlstm.core.commit import Commit
from streamlstm.core.log import Record, Standing
from streamlstm.core.observer import Observer

PREFIX = "streamlstm"
disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series of counters, and Prometheus asks for none of them
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
AGES_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0, 86_400.0)


class Metrics(Observer):
    """Metrics of a session on one topic; written by the thread that polls, read by those of scrapes.

    ``clock`` gives unix seconds. ``health`` hears the same, so that one observer serves both.
    """

    def __init__(
        self, service: str, topic: str, group: str, health: Health, clock: Callable[[], float] = time.time
    ) -> None:
        self.registry = CollectorRegistry()
        self.health, self.topic, self.clock = health, topic, clock
        self._claims: dict[int, int] = {}
        self._restoring: set[int] = set()
        ProcessCollector(registry=self.registry)
        build = self.gauge("build_info", "The release, and what this process does.", "version", "service", "group")
        build.labels(__version__, service, group).set(1)
        self.gauge("ready", "1 if /readyz says so, else 0.").set_function(lambda: float(not health.not_ready()))
        self.gauge("alive", "1 if /livez says so, else 0.").set_function(lambda: float(not health.not_alive()))
        self._polled_at = self.gauge("last_poll_timestamp_seconds", "When the log was last polled.")
        self._poll = self.histogram("poll_duration_seconds", "Polls, with their wait for records.", SECONDS)
        self._transaction = self.histogram("transaction_duration_seconds", "Commits, from begin to end.", SECONDS)
        self._unavailable = self.counter("log_unavailable_total", "Times the log was found out of reach.")
        self._records = self.counter("polled_records_total", "Records taken from the log.", "topic", "partition")
        self._lag = self.gauge("lag_records", "Offsets still to be polled; every 10 s.", "topic", "partition")
        self._claimed = self.gauge("claimed_partitions", "Partitions whose records come to this process.")
        self._rebalances = self.counter("rebalances_total", "Times that partitions came or went.")
        self._restores = self.counter("restores_total", "Partitions whose states were read back.")
        self._remaining = self.gauge(
            "restore_remaining_records", "State records still to be read back, at most.", "topic", "partition"
        )
        self.dead_letters = self.counter("dead_letters_total", "Records that became dead letters.", "reason")
        self.per_partition: list[Gauge | Counter] = [self._records, self._lag]

    def counter(self, name: str, says: str, *labels: str) -> Counter:
        """Return a new counter; ``name`` ends in ``_total``."""
        return Counter(name, says, labels, namespace=PREFIX, registry=self.registry)

    def gauge(self, name: str, says: str, *labels: str) -> Gauge:
        """Return a new gauge."""
        return Gauge(name, says, labels, namespace=PREFIX, registry=self.registry)

    def histogram(self, name: str, says: str, buckets: Sequence[float], *labels: str) -> Histogram:
        """Return a new histogram."""
        return Histogram(name, says, labels, namespace=PREFIX, registry=self.registry, buckets=buckets)

    def polled(self, records: Sequence[Record], seconds: float, claims: Mapping[int, int], standing: Standing) -> None:
        """Count a poll, and show what is claimed now."""
        self.health.polled(standing)
        self._polled_at.set(self.clock())
        self._poll.observe(seconds)
        if claims != self._claims or self._restoring or standing.restoring:
            self._follow(claims, standing)
        counts = _by_partition(records)
        for partition, count in counts.items():
            self._records.labels(self.topic, partition).inc(count)

    def _follow(self, claims: Mapping[int, int], standing: Standing) -> None:
        """Take up what came, remove the series of what went."""
        before, ours = self._claims, {*claims, *standing.restoring}
        taken = [p for p, number in before.items() if claims.get(p, number) != number or p not in claims]
        if taken or ours != {*before, *self._restoring}:
            self._rebalances.inc()
        self._restores.inc(len(self._restoring & set(claims)))
        for partition in taken:
            for metric in self.per_partition:
                metric.remove(self.topic, partition)
        for partition in self._restoring - set(standing.restoring):
            self._remaining.remove(self.topic, partition)
        for partition, remaining in standing.restoring.items():
            if remaining is not None:
                self._remaining.labels(self.topic, partition).set(remaining)
        self._claims, self._restoring = dict(claims), set(standing.restoring)
        self._claimed.set(len(claims))
        self.forget(taken)

    def forget(self, partitions: Sequence[int]) -> None:
        """Drop what else is known of partitions that went."""

    def lagging(self, lag: Mapping[int, int]) -> None:
        """Show the lag of what is claimed."""
        for partition, offsets in lag.items():
            if partition in self._claims:
                self._lag.labels(self.topic, partition).set(offsets)

    def committed(self, commit: Commit, seconds: float) -> None:  # noqa: ARG002
        """Time a transaction."""
        self._transaction.observe(seconds)

    def unavailable(self) -> None:
        """Count a try in vain."""
        self.health.unavailable()
        self._unavailable.inc()

    def available(self) -> None:
        """Tell health."""
        self.health.available()


def _by_partition(records: Sequence[Record]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for record in records:
        counts[record.partition] = counts.get(record.partition, 0) + 1
    return counts
