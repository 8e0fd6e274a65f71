"""The edge box's three services, run as its unit files say, and a real Prometheus that scrapes them.

The rules are loaded and silent, and every query of the Grafana dashboard finds something.
"""

from __future__ import annotations

import json
import math
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streamlstm.adapters.sqlite_log import SqliteLog
from tests import builders
from tests.deploy import ways
from tests.end_to_end import runs
from tests.programs import program
from tests.receiver import Receiver
from tests.services.test_metrics import get

CONFIG = """
global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: streamlstm-score
    static_configs: [{{targets: ["127.0.0.1:{score}"]}}]
  - job_name: streamlstm-alert
    static_configs: [{{targets: ["127.0.0.1:{alert}"]}}]
"""
GRAFANA = ways.DEPLOY / "compose" / "grafana" / "streamlstm.json"


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(port: int, path: str, **parameters: str) -> list[Any]:
    """Return what Prometheus answers; nothing while it starts."""
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            data = json.load(answer)["data"]
    except (urllib.error.URLError, ConnectionError):
        return []
    return list(data["result"] if "result" in data else data["groups"])


def numbers(port: int, query: str) -> list[float]:
    """Return the values that a query finds."""
    found = (float(sample["value"][1]) for sample in ask(port, "query", query=query))
    return [value for value in found if not math.isnan(value)]


def queries() -> list[str]:
    """Return every query of the Grafana dashboard, with rates over all that Prometheus has seen.

    Grafana would take less. But the feed is short, and a slow machine has read all of it before it comes to a query.
    """
    panels = json.loads(GRAFANA.read_text())["panels"]
    return [target["expr"].replace("$__rate_interval", "1h") for panel in panels for target in panel["targets"]]


@contextmanager
def prometheus(directory: Path, config: str) -> Iterator[int]:
    """Run Prometheus; yield its port."""
    binary, port = program("prometheus", "prometheus"), free_port()
    (directory / "prometheus.yml").write_text(config)
    options = [f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/prometheus"]
    with (directory / "prometheus.log").open("w") as out:
        process = subprocess.Popen([binary, *options, f"--web.listen-address=127.0.0.1:{port}"], stdout=out, stderr=out)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(runs.TIMEOUT_S)


@dataclass(frozen=True)
class Box:
    """What runs: processes by name, and ports."""

    processes: Mapping[str, subprocess.Popen[str]]
    score: int
    alert: int
    prometheus: int
    log: Path

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something; all must go on running."""
        runs.wait_until(condition, self.processes["score"])


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """The services on a log whose second half comes when Prometheus has seen both score and deliver the first.

    So every counter has grown between two scrapes. All stop with status 0.
    """
    root = tmp_path_factory.mktemp("box")
    ways.lay_out(root)
    runs.write_model(root / "var/lib/streamlstm")
    path, feed = root / "var/lib/streamlstm/log.db", builders.make_troubled_feed()
    log = SqliteLog(path, clock=lambda: 2 * builders.START_MS)
    log.create_topic(runs.TOPIC, 2)
    log.append(runs.TOPIC, feed[: len(feed) // 2])
    score, alert = free_port(), free_port()
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        settings = root / "etc/streamlstm/streamlstm.toml"
        text = settings.read_text()
        replaced = {"sensors": runs.TOPIC, "9464": score, "9465": alert, "https://pager.example/in": receiver.url}
        for here, there in replaced.items():
            assert here in text
            text = text.replace(here, str(there))
        settings.write_text(text)
        processes = {}
        for command in ways.unit_commands():
            name = command.where.rpartition("-")[2]
            more = ("--port", "0") if name == "dashboard" else ()
            output = root / f"{name}.txt"
            processes[name] = runs.start("streamlstm", *command.under(root).words, *more, cwd=root, output=output)
            stack.callback(processes[name].kill)
        rules = ways.DEPLOY / "alert-rules.yml"
        own = stack.enter_context(prometheus(root, CONFIG.format(score=score, alert=alert, rules=rules)))
        found = Box(processes, score, alert, own, path)
        first_half = ("sum(streamlstm_events_total) > 0", "sum(streamlstm_webhook_deliveries_total) > 0")
        found.wait_until(lambda: all(numbers(own, query) for query in first_half))
        log.append(runs.TOPIC, feed[len(feed) // 2 :])
        log.close()
        yield found
        for name, process in processes.items():
            process.send_signal(signal.SIGTERM)
            assert process.wait(runs.TIMEOUT_S) == 0, (root / f"{name}.txt").read_text()


def test_counters_arrive_as_they_are_in_the_log(box: Box) -> None:
    """Every record is an event or a dead letter, and the processes answer their probes."""
    log = SqliteLog(box.log)
    records = sum(log.topic(runs.TOPIC).end_offsets)
    log.close()
    query = 'sum(streamlstm_events_total) + sum(streamlstm_dead_letters_total{job="streamlstm-score"})'
    box.wait_until(lambda: numbers(box.prometheus, query) == [records])
    for port in (box.score, box.alert):
        assert [get(port, page) for page in ("/startupz", "/livez", "/readyz")] == [(200, "ok\n")] * 3
    assert numbers(box.prometheus, "up") == [1.0, 1.0]


def test_rules_are_evaluated(box: Box) -> None:
    """By Prometheus itself, and without an error."""
    assert len([rule for group in ask(box.prometheus, "rules") for rule in group["rules"]]) == 7
    box.wait_until(lambda: all(r["health"] == "ok" for g in ask(box.prometheus, "rules") for r in g["rules"]))


@pytest.mark.parametrize("query", queries())
def test_query_of_the_grafana_dashboard_finds_something(box: Box, query: str) -> None:
    """A panel without data looks like a world in order."""
    box.wait_until(lambda: bool(numbers(box.prometheus, query)))


@pytest.mark.parametrize("service", ["score", "alert"])
def test_metrics_please_promtool(box: Box, service: str) -> None:
    """Names, units and help as Prometheus's linter wants them."""
    _, page = get(getattr(box, service))
    promtool = program("promtool", "prometheus")
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_live_page_runs_beside_them(box: Box) -> None:
    """It has not ended, and says where it is."""
    assert box.processes["dashboard"].poll() is None
