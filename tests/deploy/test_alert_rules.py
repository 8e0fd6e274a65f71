"""Alert rules and runbook: right by Prometheus's own checker, about metrics that there are, each with a way out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from streamlstm.adapters.alerter_metrics import AlerterMetrics
from streamlstm.adapters.health import Health
from streamlstm.adapters.scorer_metrics import ScorerMetrics
from tests.programs import program

ROOT = Path(__file__).parents[2]
RULES, RUNBOOK = ROOT / "deploy" / "alert-rules.yml", ROOT / "deploy" / "RUNBOOK.md"
GRAFANA = ROOT / "deploy" / "compose" / "grafana" / "streamlstm.json"
SCALING = ROOT / "deploy" / "kubernetes" / "production" / "scaling.yaml"
NAMING = (RULES, RUNBOOK, ROOT / "README.md", ROOT / "deploy" / "README.md", GRAFANA, SCALING)


def families() -> set[str]:
    """Return the names of all metrics, and of their histograms' parts."""
    pages = "".join(
        generate_latest(kind("s", "events", "g", Health(1.0)).registry).decode()
        for kind in (ScorerMetrics, AlerterMetrics)
    )
    found = set(re.findall(r"# TYPE (streamlstm_\w+)", pages))
    return found | {f"{name}_{part}" for name in found for part in ("bucket", "sum", "count")}


@pytest.mark.parametrize(
    "arguments", [["check", "rules", RULES], ["test", "rules", Path(__file__).parent / "alert-rules-test.yml"]]
)
def test_rules_please_promtool(arguments: list[str | Path]) -> None:
    """They can be read, are silent when all is well, and fire when it is not."""
    promtool = program("promtool", "prometheus")
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", NAMING, ids=lambda path: path.name)
def test_metrics_that_are_named_exist(path: Path) -> None:
    """An alert about a metric that nobody writes never fires."""
    named = set(re.findall(r"streamlstm_[a-z_]+[a-z]", path.read_text()))
    assert named - families() == set()
    assert named or path.suffix == ".md"


def test_readme_lists_every_metric() -> None:
    """What is not listed is not found."""
    section = (ROOT / "README.md").read_text().partition("## Operate it")[2].partition("\n## ")[0]
    named = {f"streamlstm_{name}" for name in re.findall(r"`([a-z_]+)`", section)}
    assert {name for name in families() if not name.endswith(("_bucket", "_sum", "_count"))} - named == set()


def test_each_alert_has_its_part_of_the_runbook() -> None:
    """Who is woken finds what to do under the alert's name; and there are five, not fifty."""
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert len(alerts) == 5
    assert re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE) == alerts
    for alert in alerts:
        assert f"deploy/RUNBOOK.md#{alert.lower()}\n" in RULES.read_text()
