"""Manifests: right by Kubernetes' schemas, hardened, and probed where our processes answer. No cluster is asked."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from streamlstm import __version__
from tests.deploy import ways

OLDEST, NEWEST = "1.29", "1.37"  # of Kubernetes, that schemas are asked of
OTHERS_KINDS = {"ScaledObject", "PodMonitor"}  # of KEDA and of the Prometheus operator: there is no schema here
PODS = dict(ways.pods(ways.documents()))
SERVING = {"scorer": 9464, "alerter": 9464, "dashboard": 8080}


@pytest.fixture(scope="module")
def production() -> list[dict[str, Any]]:
    """What kubectl makes of base and overlay."""
    program = shutil.which("kubectl")
    done = subprocess.run([program or "false", "kustomize", ways.PRODUCTION], capture_output=True, text=True)
    if program is None or (done.returncode and "unknown field" in done.stderr):
        pytest.skip("no kubectl that knows this kustomization (1.21 or later; Debian's is older): base only is checked")
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def validate(documents: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> int:
    """Check documents by the strict schemas, which refuse unknown names; return how many there were."""
    found = 0
    for document in documents:
        if document["kind"] not in OTHERS_KINDS:
            for version in (OLDEST, NEWEST):
                kubernetes_validate.validate(document, version, strict=True)
            found += 1
    return found


def test_base_fits_the_schemas() -> None:
    """As it is written."""
    assert validate(ways.documents()) > 15


def test_production_fits_the_schemas(production: list[dict[str, Any]]) -> None:
    """As kubectl makes it of base and overlay."""
    assert validate(production) > 15


def test_schema_check_finds_a_mistake() -> None:
    """The check itself: a name that Kubernetes does not know."""
    wrong = next(document for document in ways.documents() if document["kind"] == "StatefulSet")
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate([wrong])


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_hardened(name: str) -> None:
    """Nobody's user, a root that cannot be written, no capabilities, no token, bounds, and no variables of others."""
    pod = PODS[name]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for bound in ("requests", "limits"):
        assert set(container["resources"][bound]) == {"cpu", "memory"}
    assert PODS[name]["metadata"]["labels"]["kafka"] == "yes"
    mounted = {mount["name"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounted == {volume["name"]: mounted[volume["name"]] for volume in pod["volumes"]}
    assert {volume for volume, read_only in mounted.items() if not read_only} == (
        {"tmp", "bundles"} if name == "train" else {"tmp"}
    )


@pytest.mark.parametrize(("name", "port"), SERVING.items())
def test_probes_are_at_the_pages_that_answer(name: str, port: int) -> None:
    """At the port that the command listens at; a start may take as long as an outage is waited for."""
    (container,) = PODS[name]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    pages = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {ports[page["port"]] for page in pages.values()} == {port}
    wanted = ["/startupz", "/livez", "/readyz"] if port == 9464 else ["/"] * 3
    assert [page["path"] for page in pages.values()] == wanted
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 300


@pytest.mark.parametrize("name", ["scorer", "alerter"])
def test_members_keep_their_names(name: str) -> None:
    """A pod's name is its instance; it has time to leave; an update that fails can be taken back."""
    (workload,) = (d for d in ways.documents() if d["kind"] == "StatefulSet" and d["metadata"]["name"] == name)
    assert workload["spec"]["podManagementPolicy"] == "Parallel"
    pod = workload["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert "--instance $(POD_NAME)" in " ".join(pod["containers"][0]["args"])


def test_selectors_and_policies_mean_pods_that_there_are() -> None:
    """A budget, a service or a policy for a label that nobody has does nothing, in silence."""
    labels = [pod["metadata"]["labels"].items() for pod in PODS.values()]
    for document in ways.documents():
        spec = document.get("spec", {})
        found = spec.get("selector") or spec.get("podSelector")
        if found:
            wanted = found.get("matchLabels", {} if "matchExpressions" in found else found)
            assert any(wanted.items() <= own for own in labels), document
    text = (ways.BASE / "network.yaml").read_text() + (ways.PRODUCTION / "scraping.yaml").read_text()
    apps = {pod["metadata"]["labels"]["app"] for pod in PODS.values()}
    assert set(re.findall(r"streamlstm-\w+", text)) <= apps


def test_overlay_reaches_every_pod(production: list[dict[str, Any]]) -> None:
    """Image, settings and size are those of the overlay; nothing points at a name that kustomize has changed."""
    made = dict(ways.pods(iter(production)))
    assert made.keys() == PODS.keys()
    maps = {d["metadata"]["name"]: d["data"] for d in production if d["kind"] == "ConfigMap"}
    for pod in made.values():
        (container,) = pod["spec"]["containers"]
        assert container["image"] == f"registry.example/streamlstm:{__version__}"
        settings = maps[container["envFrom"][0]["configMapRef"]["name"]]
        assert settings["STREAMLSTM_TOPIC"] == "sensors"
        assert all(v["configMap"]["name"] in maps for v in pod["spec"]["volumes"] if "configMap" in v)
    (scorer,) = (d for d in production if d["kind"] == "StatefulSet" and d["metadata"]["name"] == "scorer")
    assert "replicas" not in scorer["spec"], "KEDA and this would take turns"


def test_scaling_is_bounded_by_partitions_and_slow_to_go_back() -> None:
    """More scorers than partitions stand by; each step down reads states anew."""
    scaled = yaml.safe_load((ways.PRODUCTION / "scaling.yaml").read_text())["spec"]
    (topics,) = (c for c in ways.kubernetes_commands() if c.where == "kubernetes topics")
    assert scaled["maxReplicaCount"] == int(topics.words[topics.words.index("--partitions") + 1])
    assert scaled["scaleTargetRef"]["name"] in PODS
    behaviour = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    spec = {"scaleTargetRef": scaled["scaleTargetRef"], "maxReplicas": scaled["maxReplicaCount"], "behavior": behaviour}
    metadata = {"name": "made-by-keda"}
    assert validate(
        [{"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec}]
    )
    assert min(scaled["cooldownPeriod"], behaviour["scaleDown"]["stabilizationWindowSeconds"]) >= 1800
