"""Metrics and probes of real services on a SQLite log, read over HTTP."""

from __future__ import annotations

import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamlstm.adapters.alerter_metrics import AlerterMetrics
from streamlstm.adapters.health import Health
from streamlstm.adapters.metrics_server import application, serving
from streamlstm.adapters.scorer_metrics import ScorerMetrics
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.delivery import Outcome
from streamlstm.core.log import Record
from streamlstm.core.record import decode_alert, decode_score
from streamlstm.errors import SettingsError
from streamlstm.services import alerter, scorer
from streamlstm.services.metrics import scorer_observer
from streamlstm.services.settings import AlertSettings, ScoreSettings
from tests import builders
from tests.alerts import START_MS, append_alerts, make_alerts
from tests.end_to_end import runs
from tests.programs import program
from tests.services.test_alerter import DELIVERED, FAILED, REFUSED, SimulatedReceiver

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
NOW_S = 2 * builders.START_MS / 1000  # when the log took the feed


def get(port: int, path: str = "/metrics") -> tuple[int, str]:
    """Return status and text of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def page_of(metrics: ScorerMetrics | AlerterMetrics) -> str:
    """Return the metrics page, read over HTTP."""
    with serving("127.0.0.1", 0, application(metrics.registry, metrics.health)) as port:
        status, page = get(port)
    assert status == 200
    return page


def samples_of(page: str) -> Samples:
    """Return every sample of a page by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: Any) -> float:
    """Return a sample; fails if there is none."""
    return samples[f"streamlstm_{name}", tuple(sorted((label, str(given)) for label, given in labels.items()))]


def new_scorer_metrics(**options: Any) -> ScorerMetrics:
    """Return metrics in a world whose time stands still."""
    return ScorerMetrics("score", "events", "streamlstm", Health(300.0), clock=lambda: NOW_S, **options)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Samples, str]:
    """A log that was scored under observation, with few rows in memory; the metrics, and their page."""
    path = runs.write_input(tmp_path_factory.mktemp("metrics") / "log.db")
    metrics = new_scorer_metrics()
    log = SqliteLog(path)
    settings = ScoreSettings(until_end=True, poll_records=25, max_keys=3, alarm_rate=0.002)
    scorer.run(log, builders.expiring_bundle(), settings, threading.Event(), metrics)
    log.close()
    page = page_of(metrics)
    return path, samples_of(page), page


def test_scorer_counts_are_those_of_the_output_topics(scored: tuple[Path, Samples, str]) -> None:
    """Events by status, dead letters by reason, alerts by action: each equals what can be counted in the log."""
    path, samples, _ = scored
    outputs = runs.outputs_of(path)
    scores = [decode_score(record.value) for record in outputs["events.scores"]]
    assert Counter(score.status for score in scores) == {
        status: value(samples, "events_total", status=status) for status in {score.status for score in scores}
    }
    reasons = Counter(dict(record.headers)["reason"].decode() for record in outputs["events.dead-letters"])
    assert len(reasons) > 3
    for reason, count in reasons.items():
        assert value(samples, "dead_letters_total", reason=reason) == count
    assert value(samples, "dead_letters_total", reason="oversized") == 0, "a series before its first event"
    alerts = [decode_alert(record.value) for record in outputs["events.alerts"]]
    for action, count in Counter(alert.action for alert in alerts).items():
        assert value(samples, "alerts_total", action=action) == count
    polled = [value(samples, "polled_records_total", topic="events", partition=partition) for partition in (0, 1)]
    assert sum(polled) == len(scores) + reasons.total()


def test_scorer_shows_the_distribution_of_scores_and_the_promise(scored: tuple[Path, Samples, str]) -> None:
    """The histogram holds every score once, flagged events are those beyond the rate promised."""
    path, samples, _ = scored
    scores = [decode_score(record.value) for record in runs.outputs_of(path)["events.scores"]]
    known = [score for score in scores if score.score is not None]
    assert value(samples, "score_count") == len(known)
    assert value(samples, "score_sum") == pytest.approx(sum(score.score or 0.0 for score in known), rel=1e-6)
    for bound in (0.5, 1.0, 3.0):
        assert value(samples, "score_bucket", le=bound) == sum((score.score or 0.0) <= bound for score in known)
    assert value(samples, "promised_alarm_ratio") == 0.002
    assert value(samples, "promised_alerts_per_key_week") == pytest.approx(0.002 * 604_800, rel=1e-6), "one a second"
    flagged = sum(score.tail_probability is not None and score.tail_probability <= 0.002 for score in known)
    assert value(samples, "flagged_events_total") == flagged > 0


def test_scorer_shows_the_time_that_its_alerts_are_of(scored: tuple[Path, Samples, str]) -> None:
    """From each key's first score to its last; less the poll in which one starts anew after a silence."""
    path, samples, _ = scored
    times = defaultdict(list)
    for record in runs.outputs_of(path)["events.scores"]:
        score = decode_score(record.value)
        times[record.partition, score.key].append(score.time_ms)
    gaps = [gap for of_key in times.values() for gap in np.diff(of_key).tolist()]
    assert value(samples, "watched_key_seconds_total") == pytest.approx(
        sum(gap for gap in gaps if gap <= 60_000) / 1000, rel=0.005
    )


def test_scorer_shows_where_it_stands(scored: tuple[Path, Samples, str]) -> None:
    """Bundle, claims, watermarks, age of events, keys in memory, those that left it, open alerts."""
    path, samples, _ = scored
    name = builders.expiring_bundle().name
    assert value(samples, "bundle_info", bundle=name, topic="events", group="streamlstm") == 1
    assert (value(samples, "claimed_partitions"), value(samples, "rebalances_total")) == (2, 1)
    log = SqliteLog(path)
    for partition, watermark_ms in log.open_session("events", "streamlstm").watermarks().items():
        assert value(samples, "watermark_timestamp_seconds", topic="events", partition=partition) * 1000 == watermark_ms
    log.close()
    assert value(samples, "event_age_seconds_count") > 0
    assert value(samples, "event_age_seconds_bucket", le=86_400.0) == 0, "the feed is of long ago"
    assert value(samples, "state_keys") == 3
    assert value(samples, "state_bytes") > 3 * 100
    assert value(samples, "state_evictions_total") > 2
    opened, resolved = (value(samples, "alerts_total", action=action) for action in ("opened", "resolved"))
    assert value(samples, "open_alerts") == opened - resolved
    assert value(samples, "transaction_duration_seconds_count") >= 2
    assert value(samples, "poll_duration_seconds_count") >= 2


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run Prometheus's own checker."""
    return subprocess.run(
        [program("promtool", "prometheus"), *arguments], input=given, capture_output=True, text=True, check=False
    )


def test_scorer_page_pleases_promtool(scored: tuple[Path, Samples, str]) -> None:
    """Names, units, help and types are as Prometheus wants them."""
    checked = promtool("check", "metrics", given=scored[2])
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_scorer_under_observation_scores_the_same_events(scored: tuple[Path, Samples, str]) -> None:
    """Looking loses none, adds none, and changes no status; the rate, and with it thresholds, differ here."""
    log = SqliteLog(scored[0])
    observed = [record.value for record in log.read("events.scores", 0, 0, 1_000_000)]
    log.close()
    assert len(observed) == sum(record.partition == 0 for record in runs.plain_outputs()["events.scores"])
    plain = [record.value for record in runs.plain_outputs()["events.scores"] if record.partition == 0]
    strip = [(decode_score(value).offset, decode_score(value).status) for value in observed]
    assert strip == [(decode_score(value).offset, decode_score(value).status) for value in plain]


def deliver(tmp_path: Path, receiver: SimulatedReceiver, **options: Any) -> tuple[alerter.Totals, str]:
    """Deliver 30 alerts under observation; return the alerter's own totals, and the page."""
    log = SqliteLog(tmp_path / "log.db", clock=lambda: START_MS)
    append_alerts(log, make_alerts(30))
    metrics = AlerterMetrics("alert", "events.alerts", "streamlstm", Health(300.0), clock=lambda: START_MS / 1000 + 0.4)
    settings = AlertSettings(log="", webhook="", until_end=True, **options)
    totals = alerter.run(
        log,
        receiver,
        settings,
        threading.Event(),
        clock=receiver.clock,
        wall_clock=lambda: START_MS / 1000,
        rng=lambda: 0.5,
        observer=metrics,
    )
    log.close()
    return totals, page_of(metrics)


def test_alerter_counts_deliveries_by_outcome_and_dead_letters_by_reason(tmp_path: Path) -> None:
    """Each request has its outcome, each dead letter its reason, and what was delivered its delay."""
    tries: Counter[int] = Counter()

    def answer(record: Record, now_s: float) -> Outcome:
        tries[record.offset] += 1
        if record.offset == 7:
            return REFUSED
        return FAILED if record.offset in (3, 11) and tries[record.offset] == 1 else DELIVERED

    totals, page = deliver(tmp_path, SimulatedReceiver(answer, latency_s=0.02))
    samples = samples_of(page)
    outcomes = [value(samples, "webhook_deliveries_total", outcome=o) for o in ("delivered", "failed", "refused")]
    assert outcomes == [29, 2, 1]
    assert totals.delivered == 29
    assert value(samples, "dead_letters_total", reason="refused") == totals.dead_letters == 1
    assert value(samples, "dead_letters_total", reason="tries") == 0
    assert value(samples, "webhook_duration_seconds_sum") == pytest.approx(32 * 0.02)
    assert value(samples, "alert_delay_seconds_bucket", le=0.25) == 0
    assert value(samples, "alert_delay_seconds_bucket", le=0.5) == 29
    assert (value(samples, "waiting_alerts"), value(samples, "receiver_up")) == (0, 1)
    checked = promtool("check", "metrics", given=page)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_alerter_whose_receiver_is_down_says_so(tmp_path: Path) -> None:
    """What waits can be seen while it waits."""
    seen: list[tuple[int, bool]] = []

    class Watching(AlerterMetrics):
        def waiting(self, alerts: int, receiver_down: bool) -> None:
            seen.append((alerts, receiver_down))

    receiver = SimulatedReceiver(lambda record, now_s: FAILED if now_s < 1060 else DELIVERED)
    log = SqliteLog(tmp_path / "log.db")
    append_alerts(log, make_alerts(30))
    alerter.run(
        log,
        receiver,
        AlertSettings(log="", webhook="", until_end=True),
        threading.Event(),
        clock=receiver.clock,
        observer=Watching("alert", "events.alerts", "streamlstm", Health(300.0)),
    )
    log.close()
    assert (30, True) in seen
    assert seen[-1] == (0, False)


def test_port_that_is_taken_ends_with_one_sentence() -> None:
    """Two services of one host need two ports."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port: int = taken.getsockname()[1]
        with (
            pytest.raises(SettingsError, match=f"--metrics-port {port}: Address already in use"),
            scorer_observer(ScoreSettings(metrics_port=port), "events"),
        ):
            pass


def test_services_without_a_port_load_no_metrics_library() -> None:
    """Who does not ask for metrics does not pay for them."""
    code = (
        "import sys, streamlstm.services.scorer, streamlstm.services.alerter; print('prometheus_client' in sys.modules)"
    )
    process = runs.start("timeit", "-n1", "-r1", code)
    out, _ = process.communicate(timeout=runs.TIMEOUT_S)
    assert out.startswith("False")


def paths(port: int, names: Sequence[str] = ("/startupz", "/livez", "/readyz")) -> list[int]:
    """Return the status of each page."""
    return [get(port, name)[0] for name in names]


def test_unknown_page_is_not_found() -> None:
    """The answer names those there are."""
    metrics = new_scorer_metrics()
    with serving("127.0.0.1", 0, application(metrics.registry, metrics.health)) as port:
        assert get(port, "/") == (404, "there are /metrics, /livez, /readyz and /startupz\n")
        assert paths(port) == [503, 200, 503]
