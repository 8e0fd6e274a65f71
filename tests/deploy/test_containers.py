"""Image and compose: right by their schemas, and as hardened as they say. No container engine is asked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamlstm import __version__
from tests.deploy import ways
from tests.kafka_broker import IMAGE
from tests.programs import program

COMPOSE = ways.DEPLOY / "compose" / "compose.yaml"
DOCKERFILE = ways.DEPLOY / "image" / "Dockerfile"
SERVICES = ways.compose()["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("streamlstm:")}
ENDING = {"simulate", "train", "topics"}
WITHOUT_PORT = {*ENDING, "replay"}


def run(*words: object) -> None:
    """Run a checker of this installation; it must be content."""
    program, *arguments = map(str, words)
    done = subprocess.run([Path(sys.executable).parent / program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_image_definition_pleases_hadolint() -> None:
    """The linter of image definitions; shellcheck looks at its commands, too."""
    run("hadolint", DOCKERFILE)


def test_compose_file_fits_its_schema() -> None:
    """The schema of the Compose specification."""
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_image_is_pinned_and_runs_as_nobody() -> None:
    """One base with a full version for both stages, a user with a number, which Kubernetes can tell from root."""
    text = DOCKERFILE.read_text()
    assert re.findall(r"^FROM (.*)$", text, re.M) == ["${BASE} AS build", "${BASE}"]
    assert re.search(r"^ARG BASE=python:3\.\d+\.\d+-slim-\w+$", text, re.M)
    assert re.findall(r"^USER (.*)$", text, re.M) == ["10001:10001"]
    assert "ENTRYPOINT" in text.partition("USER ")[2]
    assert "/livez" in text.partition("HEALTHCHECK")[2]
    assert ways.image()["STREAMLSTM_METRICS_PORT"] == "9464"
    installs = [line for line in text.splitlines() if line.startswith("RUN") and "pip install" in line]
    assert len(installs) == 2
    assert all("constraints.txt" in line for line in installs)


def test_image_gets_all_that_it_copies_and_no_more() -> None:
    """What .dockerignore lets through is what the definition copies from the context."""
    text = DOCKERFILE.read_text()
    copied = {word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M) for word in line.split()}
    ignored = (ways.DEPLOY.parent / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ways.DEPLOY.parent / name).exists() for name in copied)


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_bounded_and_drops_what_it_does_not_need(name: str) -> None:
    """No capabilities, no way to get any, a bound of memory, a version, pages for this machine only."""
    service: dict[str, Any] = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["restart"] == ("on-failure" if name in ENDING else "unless-stopped")
    assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert service.get("read_only", False) or name in ("kafka", "grafana")
    assert "privileged" not in service


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_this_release_as_nobody(name: str) -> None:
    """With a root that cannot be written, and a health check where there is a port to ask."""
    service = OURS[name]
    assert service["image"] == f"streamlstm:{__version__}"
    assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DOCKERFILE
    assert service["user"] == "10001:10001"
    assert service["tmpfs"] == ["/tmp"]
    assert (service.get("healthcheck") == {"disable": True}) == (name in WITHOUT_PORT)
    assert all(volume.endswith(":ro") for volume in service.get("volumes", ()) if name not in ("simulate", "train"))


def test_what_is_waited_for_and_mounted_exists() -> None:
    """Conditions that the other container can fulfil; files that are there; secrets and volumes that are declared."""
    compose = ways.compose()
    for name, service in SERVICES.items():
        for other, wanted in service.get("depends_on", {}).items():
            ends = wanted["condition"] == "service_completed_successfully"
            assert ends == (other in ENDING), (name, other)
            assert ends or "healthcheck" in SERVICES[other]
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            assert (COMPOSE.parent / source).is_file() if source.startswith(".") else source in compose["volumes"]
        assert set(service.get("secrets", ())) <= set(compose["secrets"])


def test_broker_is_the_one_that_tests_run_on() -> None:
    """The same release of Kafka."""
    assert SERVICES["kafka"]["image"] == IMAGE


def test_dashboard_asks_the_source_that_is_provisioned_in_panels_of_their_own() -> None:
    """A panel with another panel's number, or about a source that is not there, stays empty."""
    grafana = COMPOSE.parent / "grafana"
    (source,) = yaml.safe_load((grafana / "datasources.yaml").read_text())["datasources"]
    panels = json.loads((grafana / "streamlstm.json").read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [(x, y) for p in panels for at in [p["gridPos"]] for x in range(at["x"], at["x"] + at["w"])
             for y in range(at["y"], at["y"] + at["h"])]  # fmt: skip
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    assert source["url"].removeprefix("http://").split(":")[0] in SERVICES


def test_prometheus_configuration_is_one() -> None:
    """By Prometheus's own checker; its targets are services, at the port that they serve."""
    path = COMPOSE.parent / "prometheus.yml"
    promtool = program("promtool", "prometheus")
    done = subprocess.run([promtool, "check", "config", "--syntax-only", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = yaml.safe_load(path.read_text())["scrape_configs"]
    assert all(job["job_name"].startswith("streamlstm") for job in jobs)
    targets = [target.split(":") for job in jobs for static in job["static_configs"] for target in static["targets"]]
    assert targets == [["score", "9464"], ["alert", "9464"]]
