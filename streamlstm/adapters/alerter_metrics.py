"""What an alerter shows to Prometheus: deliveries, and what waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from streamlstm.adapters.health import Health
from streamlstm.adapters.metrics import AGES_S, SECONDS, Metrics
from streamlstm.core.delivery import DeadLetter, Outcome
from streamlstm.core.log import Record

OUTCOMES = ("delivered", "failed", "refused")
REASONS = ("refused", "tries", "too_old")


class AlerterMetrics(Metrics):
    """Metrics of an alerter."""

    def __init__(
        self, service: str, topic: str, group: str, health: Health, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(service, topic, group, health, clock)
        self._deliveries = self.counter("webhook_deliveries_total", "Requests to the webhook.", "outcome")
        self._duration = self.histogram("webhook_duration_seconds", "Requests to the webhook.", SECONDS)
        self._delay = self.histogram(
            "alert_delay_seconds", "From the alert's commit to its delivery, of those delivered.", AGES_S
        )
        self._waiting = self.gauge("waiting_alerts", "Alerts read that are neither delivered nor dead letters.")
        self._up = self.gauge("receiver_up", "0 while the receiver is taken for down, else 1.")
        self._up.set(1)
        for outcome in OUTCOMES:
            self._deliveries.labels(outcome)
        for reason in REASONS:
            self.dead_letters.labels(reason)

    def tried(self, record: Record, outcome: Outcome, seconds: float) -> None:
        """Count a request."""
        self._deliveries.labels(outcome.result).inc()
        self._duration.observe(seconds)
        if outcome.result == "delivered":
            self._delay.observe(max(0.0, self.clock() - record.timestamp_ms / 1000))

    def given_up(self, letters: Sequence[DeadLetter]) -> None:
        """Count dead letters."""
        for letter in letters:
            self.dead_letters.labels(letter.reason).inc()

    def waiting(self, alerts: int, receiver_down: bool) -> None:
        """Show what waits."""
        self._waiting.set(alerts)
        self._up.set(not receiver_down)
