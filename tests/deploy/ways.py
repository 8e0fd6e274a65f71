"""The ways to deploy, read from their files in ``deploy/``: every container and unit, and what it runs."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.kafka_broker import Authority

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE, PRODUCTION = DEPLOY / "kubernetes" / "base", DEPLOY / "kubernetes" / "production"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMMON_UNIT = DEPLOY / "systemd" / "streamlstm-.service.d" / "common.conf"
PROGRAM = "/opt/streamlstm/bin/streamlstm"
PLACES = re.compile(r"(?<![\w.])/(etc/streamlstm|run/secrets|data|var/lib/streamlstm)(?=/|$|\")")
SECRETS = {  # as README.md says to make them
    "alert.toml": '[alert]\nwebhook = "https://pager.example/in"\n',
    "dashboard.toml": f'[dashboard]\ndashboard_token = "{32 * "d"}"\n',
    "webhook-secret": 32 * "w",
    "kafka-password": 16 * "k",
}


@dataclass(frozen=True)
class Command:
    """What a container or a unit runs: the words after ``streamlstm``, and its ``STREAMLSTM_…`` variables."""

    where: str
    words: tuple[str, ...]
    variables: Mapping[str, str]

    def under(self, root: Path) -> Command:
        """Return the same with the paths of a container or a box put under a directory."""
        words = tuple(under(root, word) for word in self.words)
        return Command(self.where, words, {name: under(root, value) for name, value in self.variables.items()})


def under(root: Path, text: str) -> str:
    """Return a text with the absolute paths in it put under a directory."""
    return PLACES.sub(rf"{root}/\1", text)


def lay_out(root: Path) -> None:
    """Write settings and secrets where the commands, put under ``root``, look for them."""
    etc, compose, cluster = root / "etc/streamlstm", root / "run/secrets", root / "run/secrets/streamlstm"
    for directory in (etc, cluster, root / "data", root / "var/lib/streamlstm"):
        directory.mkdir(parents=True)
    for source in (BASE / "kafka.toml", BASE / "stream.toml", DEPLOY / "systemd" / "streamlstm.toml"):
        (etc / source.name).write_text(under(root, source.read_text()))
        (etc / source.name).chmod(0o600)
    for name, text in SECRETS.items():
        for directory in (compose, cluster):
            (directory / name).write_text(text)
    (cluster / "kafka-ca.pem").write_bytes(Authority(root).certificate.read_bytes())


def image() -> dict[str, str]:
    """Return the variables that the image sets."""
    text = (DEPLOY / "image" / "Dockerfile").read_text().replace("\\\n", " ")
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", text, re.M))))


def settings(variables: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that are settings of ours, the image's among them."""
    return {name: str(value) for name, value in {**image(), **variables}.items() if name.startswith("STREAMLSTM_")}


def compose() -> dict[str, Any]:
    """Return the compose file."""
    return dict(yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text()))


def compose_commands() -> Iterator[Command]:
    """Yield what our containers run with compose."""
    for name, service in compose()["services"].items():
        if service["image"].startswith("streamlstm:"):
            yield Command(f"compose {name}", tuple(service["command"]), settings(service.get("environment") or {}))


def documents(directory: Path = BASE) -> Iterator[dict[str, Any]]:
    """Yield the documents of a kustomization as they are written, without patches."""
    for resource in yaml.safe_load((directory / "kustomization.yaml").read_text())["resources"]:
        if (directory / resource).is_file():
            yield from yaml.safe_load_all((directory / resource).read_text())


def pods(found: Iterator[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pods of workloads, with the workload's name."""
    for document in found:
        spec = document.get("spec", {})
        spec = spec.get("jobTemplate", document).get("spec", {}) if document["kind"] == "CronJob" else spec
        if "template" in spec:
            yield document["metadata"]["name"], spec["template"]


def kubernetes_commands() -> Iterator[Command]:
    """Yield what containers run in the cluster, the production overlay's settings over the base's."""
    given: dict[str, str] = {}
    for directory in (BASE, PRODUCTION):
        for generator in yaml.safe_load((directory / "kustomization.yaml").read_text())["configMapGenerator"]:
            given |= dict(literal.split("=", 1) for literal in generator.get("literals", ()))
    for name, pod in pods(documents()):
        (container,) = pod["spec"]["containers"]
        fields = {"metadata.name": f"{name}-0", "metadata.labels['batch.kubernetes.io/job-name']": "bundle-2"}
        known = {v["name"]: fields[v["valueFrom"]["fieldRef"]["fieldPath"]] for v in container.get("env", ())}
        words = [re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], word) for word in container["args"]]  # noqa: B023
        assert container["envFrom"] == [{"configMapRef": {"name": "streamlstm-settings"}}]
        yield Command(f"kubernetes {name}", tuple(words), settings(given))


def unit(path: Path) -> dict[str, str]:
    """Return the [Service] section of a unit, with what all of them have."""
    found: dict[str, str] = {}
    for file in (COMMON_UNIT, path):
        parser = configparser.RawConfigParser(strict=False, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(file)
        found |= dict(parser["Service"])
    return found


def unit_commands() -> Iterator[Command]:
    """Yield what units run."""
    for path in UNITS:
        line = unit(path)["ExecStart"].replace("${CREDENTIALS_DIRECTORY}", "/run/secrets")
        program, *words = shlex.split(line)
        assert program == PROGRAM
        yield Command(f"systemd {path.stem}", tuple(words), {})


def written_commands() -> Iterator[Command]:
    """Yield the command lines in ``deploy/README.md``."""
    for block in re.findall(r"^```\n(.*?)^```", (DEPLOY / "README.md").read_text(), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("streamlstm "):
                yield Command(f"README {line[:60]}", tuple(shlex.split(line, comments=True)[1:]), {})


def commands() -> list[Command]:
    """Return all of them."""
    return [*compose_commands(), *kubernetes_commands(), *unit_commands(), *written_commands()]
