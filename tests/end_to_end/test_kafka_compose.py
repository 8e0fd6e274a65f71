"""The compose file without containers: its settings in a real broker, its commands as processes, its Prometheus.

What differs is where: addresses, ports and paths are this machine's.
"""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaConsumer

from tests.deploy import ways
from tests.end_to_end import runs
from tests.end_to_end.test_prometheus import ask, free_port, numbers, prometheus, queries
from tests.kafka_broker import Cluster
from tests.kafka_fixtures import found
from tests.programs import program

ENDING = ("simulate", "train", "topics")
LASTING = ("replay", "score", "alert", "dashboard")
ELSEWHERE = ("listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs")


class ComposeBroker(Cluster):
    """A node with the settings that the compose file gives to the image of Kafka."""

    def settings_of(self, node: int) -> dict[str, object]:
        """Return them as the image writes them, with places of this machine."""
        given = ways.compose()["services"]["kafka"]["environment"]
        settings = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in given.items()}
        ours = super().settings_of(node)
        assert settings.keys() >= set(ELSEWHERE)
        return {**settings, **{name: ours[name] for name in ELSEWHERE}}


@pytest.fixture
def broker() -> Iterator[Cluster]:
    """The compose file's broker."""
    with found(ComposeBroker) as broker:
        yield broker


@contextmanager
def alertmanager(directory: Path) -> Iterator[int]:
    """Run Alertmanager with the compose file's configuration; yield its port."""
    binary, port = program("prometheus-alertmanager", "prometheus-alertmanager"), free_port()
    options = [f"--config.file={ways.DEPLOY}/compose/alertmanager.yml", f"--storage.path={directory}/alertmanager"]
    options += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    with (directory / "alertmanager.log").open("w") as out:
        process = subprocess.Popen([binary, *options], stdout=out, stderr=out)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(runs.TIMEOUT_S)


def patients(port: int) -> set[str]:
    """Return whose alerts Alertmanager shows."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/alerts", timeout=30) as answer:
        return {alert["labels"]["key"] for alert in json.load(answer) if "key" in alert["labels"]}


def test_compose_file_runs_as_processes(broker: Cluster, tmp_path: Path) -> None:
    """One-shots end well; alerts reach Alertmanager; every query of the dashboard finds something; all stop with 0."""
    ways.lay_out(tmp_path)
    commands = {command.where.removeprefix("compose "): command for command in ways.compose_commands()}
    assert commands.keys() == {*ENDING, *LASTING}
    ports = {name: free_port() for name in ("score", "alert")}
    with ExitStack() as stack:
        receiver = stack.enter_context(alertmanager(tmp_path))
        places = {"kafka:9092": broker.bootstrap, "alertmanager:9093": f"127.0.0.1:{receiver}"}
        places |= {f"{name}:9464": f"127.0.0.1:{port}" for name, port in ports.items()}
        places |= {"0.0.0.0": "127.0.0.1", "[alert-rules.yml]": f'["{ways.DEPLOY}/alert-rules.yml"]'}

        def here(text: str) -> str:
            for there, local in places.items():
                text = text.replace(there, local)
            return text

        def start(name: str) -> subprocess.Popen[str]:
            command = commands[name].under(tmp_path)
            variables = {key: here(value) for key, value in command.variables.items()}
            variables["STREAMLSTM_METRICS_PORT"] = str(ports.get(name, 0))
            more = ("--port", "0") if name == "dashboard" else ()
            words = (*map(here, command.words), *more)
            process = runs.start("streamlstm", *words, cwd=tmp_path, output=tmp_path / f"{name}.txt", **variables)
            stack.callback(process.kill)
            return process

        for name in ENDING:
            assert start(name).wait(runs.TIMEOUT_S) == 0, (tmp_path / f"{name}.txt").read_text()
        lasting = {name: start(name) for name in LASTING}
        config = here((ways.DEPLOY / "compose" / "prometheus.yml").read_text())
        own = stack.enter_context(prometheus(tmp_path, config))
        runs.wait_until(lambda: bool(patients(receiver)), lasting["score"])
        for query in queries():
            runs.wait_until(lambda query=query: bool(numbers(own, query)), lasting["score"])  # type: ignore[misc]
        assert len([rule for group in ask(own, "rules") for rule in group["rules"]]) == 7
        assert numbers(own, "up") == [1.0, 1.0]
        for name, process in lasting.items():
            assert process.poll() is None, name
            process.send_signal(signal.SIGTERM)
        statuses = {name: process.wait(runs.TIMEOUT_S) for name, process in lasting.items()}
        assert statuses == dict.fromkeys(LASTING, 0)
    with closing(KafkaConsumer(bootstrap_servers=broker.bootstrap)) as consumer:
        assert {"ward", "ward.scores", "ward.alerts", "ward.states.streamlstm"} <= consumer.topics()
