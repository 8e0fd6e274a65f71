"""What a scorer shows to Prometheus: events, scores, alerts, and the promise beside what became of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from streamlstm.adapters.health import Health
from streamlstm.adapters.metrics import AGES_S, PREFIX, Metrics
from streamlstm.core.alert import OPEN
from streamlstm.core.budget import UNITS_MS, Promised
from streamlstm.core.bundle import Bundle
from streamlstm.core.columns import SCORED_EVENT, STATUSES
from streamlstm.core.commit import Commit
from streamlstm.core.scorer import Outcome
from streamlstm.core.state import PHASE, Key

SCORE_BUCKETS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)  # decades of surprise
EVENT_STATUSES = STATUSES[:3]  # the others become dead letters
REASONS = ("malformed", "invalid", "oversized", "timestamp", "future", "late", "duplicate")
ACTIONS = ("opened", "updated", "resolved")


class Scores(Collector):
    """A histogram that takes a poll's scores at once; the library's own takes one at a time, for a tenth of the score's
    own cost.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = np.zeros(len(SCORE_BUCKETS) + 1, dtype=np.int64)
        self._sum = 0.0

    def add(self, scores: NDArray[np.float32]) -> None:
        """Count scores; none may be NaN."""
        places = np.searchsorted(SCORE_BUCKETS, scores)  # a score on a bound belongs below it
        counts = np.bincount(places, minlength=len(self._counts))
        total = float(scores.sum(dtype=np.float64))
        with self._lock:
            self._counts += counts
            self._sum += max(total, 0.0)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the histogram as it is now."""
        with self._lock:
            counts, total = self._counts.cumsum().tolist(), self._sum
        bounds = [*map(str, SCORE_BUCKETS), "+Inf"]
        yield HistogramMetricFamily(
            f"{PREFIX}_score", "Scores, in decades of surprise.", list(zip(bounds, counts, strict=True)), total
        )


class ScorerMetrics(Metrics):
    """Metrics of a scorer. All counts are of what was committed."""

    def __init__(
        self, service: str, topic: str, group: str, health: Health, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(service, topic, group, health, clock)
        self._bundle = self.gauge("bundle_info", "The bundle in force.", "bundle", "topic", "group")
        self._group = group
        self._promised = self.gauge("promised_alarm_ratio", "Share of the scored events that may be flagged.")
        self._budget = self.gauge("promised_alerts_per_key_week", "Alerts that may open, on average over keys.")
        self._watched = self.counter("watched_key_seconds_total", "Event time that passed for the keys, all together.")
        self._events = self.counter("events_total", "Events with a score record.", "status")
        self._flagged = self.counter("flagged_events_total", "Scored events at or beyond their key's threshold.")
        self._scores = Scores()
        self.registry.register(self._scores)
        self._alerts = self.counter("alerts_total", "Alert records.", "action")
        self._open = self.gauge("open_alerts", "Keys with an open alert, of those seen since the start.")
        self._age = self.histogram(
            "event_age_seconds", "Age of each partition's newest event when its score was committed.", AGES_S
        )
        self._watermark = self.gauge(
            "watermark_timestamp_seconds", "Largest event time that is scored.", "topic", "partition"
        )
        self.per_partition.append(self._watermark)
        self._keys = self.gauge("state_keys", "Keys in memory.")
        self._bytes = self.gauge("state_bytes", "Bytes of the rows of keys in memory.")
        self._evictions = self.counter("state_evictions_total", "Keys that left memory for want of room.")
        self._open_keys: set[Key] = set()
        self._rate, self._evicted = 0.0, 0
        for reason in REASONS:
            self.dead_letters.labels(reason)
        for status in EVENT_STATUSES:
            self._events.labels(status)
        for action in ACTIONS:
            self._alerts.labels(action)

    def restarted(self, bundle: Bundle, promised: Promised) -> None:
        """Show what is in force."""
        self._bundle.clear()
        self._bundle.labels(bundle.name, self.topic, self._group).set(1)
        self._promised.set(promised.alarm_rate)
        self._budget.set(promised.budget.due(UNITS_MS["week"]))
        self._rate = promised.alarm_rate
        self._open_keys.clear()
        self._evicted = 0

    def committed(self, commit: Commit, seconds: float) -> None:
        """Time a transaction, and the way of its events to here."""
        super().committed(commit, seconds)
        now_s = self.clock()
        for partition, watermark_ms in commit.watermarks.items():
            if watermark_ms > 0:
                self._watermark.labels(self.topic, partition).set(watermark_ms / 1000)
                self._age.observe(max(0.0, now_s - watermark_ms / 1000))

    def scored(self, outcome: Outcome, keys: int, row_bytes: int, evicted: int) -> None:
        """Count a transaction."""
        results = outcome.results
        counts = np.bincount(results.status, minlength=len(STATUSES)).tolist()
        for status, count in zip(EVENT_STATUSES, counts, strict=False):
            if count:
                self._events.labels(status).inc(count)
        scored = results.status == SCORED_EVENT
        self._scores.add(results.score[scored])
        self._flagged.inc(int(np.count_nonzero(results.probability[scored] <= np.float32(self._rate))))
        self._watched.inc(outcome.watched_ms / 1000)
        for rejection in outcome.rejections:
            self.dead_letters.labels(rejection.reason).inc()
        for alert in outcome.alerts:
            self._alerts.labels(alert.action).inc()
        self._follow_alerts(outcome)
        self._keys.set(keys)
        self._bytes.set(row_bytes)
        self._evictions.inc(evicted - self._evicted)
        self._evicted = evicted

    def _follow_alerts(self, outcome: Outcome) -> None:
        """Know which keys have an alert open, without a look at those that have none."""
        for alert in outcome.alerts:
            if alert.action == "resolved":
                self._open_keys.discard((alert.partition, alert.key.encode()))
        self._open_keys.update(
            outcome.poll.keys[row] for row in np.flatnonzero(outcome.rows.integers[:, PHASE] == OPEN).tolist()
        )
        self._open.set(len(self._open_keys))

    def forget(self, partitions: Sequence[int]) -> None:
        """Forget the alerts of partitions that went."""
        self._open_keys = {key for key in self._open_keys if key[0] not in partitions}
        self._open.set(len(self._open_keys))
