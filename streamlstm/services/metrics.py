"""Metrics and probes of a service, if its settings ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

import structlog

from streamlstm.core.observer import NOBODY, Observer
from streamlstm.errors import SettingsError

if TYPE_CHECKING:
    from streamlstm.adapters.metrics import Metrics

logger = structlog.get_logger()


class MetricsSettings(Protocol):
    """The settings that say where metrics are."""

    @property
    def metrics_port(self) -> int | None:
        """The port; None for no metrics."""

    @property
    def metrics_host(self) -> str:
        """The address to listen at."""

    @property
    def give_up_after_s(self) -> float:
        """How long the service waits for the log; a loop that stands still for longer is not alive."""

    @property
    def group(self) -> str:
        """The group."""


@contextmanager
def scorer_observer(settings: MetricsSettings, topic: str) -> Iterator[Observer]:
    """Yield the observer of a scorer; :data:`NOBODY`, and no port open, unless the settings give one."""
    if settings.metrics_port is None:
        yield NOBODY
        return
    from streamlstm.adapters.health import Health
    from streamlstm.adapters.scorer_metrics import ScorerMetrics  # the library is loaded only for those who ask

    with _served(settings, ScorerMetrics("score", topic, settings.group, Health(settings.give_up_after_s))) as metrics:
        yield metrics


@contextmanager
def alerter_observer(settings: MetricsSettings, topic: str) -> Iterator[Observer]:
    """Yield the observer of an alerter; see :func:`scorer_observer`."""
    if settings.metrics_port is None:
        yield NOBODY
        return
    from streamlstm.adapters.alerter_metrics import AlerterMetrics
    from streamlstm.adapters.health import Health

    with _served(settings, AlerterMetrics("alert", topic, settings.group, Health(settings.give_up_after_s))) as metrics:
        yield metrics


@contextmanager
def _served(settings: MetricsSettings, metrics: Metrics) -> Iterator[Metrics]:
    from streamlstm.adapters.metrics_server import application, serving

    host, wanted = settings.metrics_host, settings.metrics_port
    assert wanted is not None
    with ExitStack() as opened:
        try:
            port = opened.enter_context(serving(host, wanted, application(metrics.registry, metrics.health)))
        except OSError as error:
            raise SettingsError(f"--metrics-host {host} --metrics-port {wanted}: {error.strerror}") from error
        logger.info("metrics", host=host, port=port)
        yield metrics
