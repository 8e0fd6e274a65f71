"""Partitions that come and go, in metrics."""

from __future__ import annotations

import numpy as np
from prometheus_client import generate_latest

from streamlstm.adapters.health import Health
from streamlstm.adapters.scorer_metrics import ScorerMetrics, Scores
from streamlstm.core.commit import Commit
from streamlstm.core.log import Standing
from tests.builders import make_record


def joined(**restoring: int | None) -> Standing:
    """Return the standing of a member that restores partitions p0=…, p1=… only."""
    return Standing(True, {int(name[1:]): remaining for name, remaining in restoring.items()})


def new_metrics() -> ScorerMetrics:
    """Return metrics in a world whose time stands still."""
    return ScorerMetrics("score", "events", "g", Health(300.0), clock=lambda: 1000.0)


def lines(metrics: ScorerMetrics, *names: str) -> list[str]:
    """Return the samples of these metrics, without the namespace."""
    found = [line.removeprefix("streamlstm_") for line in generate_latest(metrics.registry).decode().splitlines()]
    return [line for line in found if line.startswith(names)]


def test_series_of_a_revoked_partition_disappear() -> None:
    """Its next owner shows them; else the lag would be counted twice, the old one for ever."""
    metrics = new_metrics()
    records = [make_record(partition=partition) for partition in (0, 0, 1)]
    metrics.polled(records, 0.1, {0: 1, 1: 2}, joined())
    metrics.lagging({0: 5, 1: 7})
    metrics.committed(Commit([], [], [], {}, {}, {0: 900_000, 1: 800_000}), 0.1)
    shown = ("polled_records_total", "lag_records", "watermark_timestamp")
    assert lines(metrics, *shown) == [
        'polled_records_total{partition="0",topic="events"} 2.0',
        'polled_records_total{partition="1",topic="events"} 1.0',
        'lag_records{partition="0",topic="events"} 5.0',
        'lag_records{partition="1",topic="events"} 7.0',
        'watermark_timestamp_seconds{partition="0",topic="events"} 900.0',
        'watermark_timestamp_seconds{partition="1",topic="events"} 800.0',
    ]
    metrics.polled([], 0.1, {1: 2}, joined())
    metrics.lagging({0: 5, 1: 8})
    assert [line for line in lines(metrics, *shown) if 'partition="0"' in line] == []
    assert 'lag_records{partition="1",topic="events"} 8.0' in lines(metrics, *shown)
    assert lines(metrics, "claimed_partitions", "rebalances_total") == [
        "claimed_partitions 1.0",
        "rebalances_total 2.0",
    ]


def test_restore_is_one_rebalance_and_shows_what_remains() -> None:
    """Given, begun, half read, done: one rebalance, one restore per partition, and no series left over."""
    metrics = new_metrics()
    metrics.polled([], 0.1, {}, joined(p0=None, p1=None))
    assert lines(metrics, "restore_remaining") == []
    metrics.polled([], 0.1, {}, joined(p0=100, p1=50))
    metrics.polled([], 0.1, {}, joined(p0=20, p1=0))
    assert lines(metrics, "restore_remaining") == [
        'restore_remaining_records{partition="0",topic="events"} 20.0',
        'restore_remaining_records{partition="1",topic="events"} 0.0',
    ]
    metrics.polled([], 0.1, {0: 1, 1: 2}, joined())
    assert lines(metrics, "restore", "rebalances_total", "claimed") == [
        "claimed_partitions 2.0",
        "rebalances_total 1.0",
        "restores_total 2.0",
    ]


def test_partition_that_went_and_came_within_a_poll_is_a_rebalance() -> None:
    """Its number tells: somebody else may have had it."""
    metrics = new_metrics()
    metrics.polled([make_record()], 0.1, {0: 1}, joined())
    metrics.polled([], 0.1, {}, joined(p0=3))
    assert lines(metrics, "rebalances_total", "polled_records_total") == ["rebalances_total 2.0"]
    metrics.polled([], 0.1, {0: 2}, joined())
    metrics.polled([], 0.1, {0: 3}, joined())
    assert lines(metrics, "rebalances_total", "restores_total") == ["rebalances_total 3.0", "restores_total 1.0"]


def test_scores_are_counted_in_the_bucket_up_to_which_they_reach() -> None:
    """A bound belongs to the bucket below it, as Prometheus has it; what is beyond all is in the last."""
    scores = Scores()
    scores.add(np.array([0.1, 0.5, 0.51, 99.0], dtype=np.float32))
    scores.add(np.array([], dtype=np.float32))
    (family,) = scores.collect()
    counts = {sample.labels.get("le"): sample.value for sample in family.samples}
    assert (counts["0.25"], counts["0.5"], counts["0.75"], counts["8.0"], counts["+Inf"]) == (1, 2, 3, 3, 4)
