"""The audit of pinned versions: what fails a build, what does not, and what it says where it cannot look."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def audit() -> ModuleType:
    """Load ``deploy/audit.py``, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("audit", DEPLOY / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(*found: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return pip-audit's report on one package with these vulnerabilities."""
    return {"dependencies": [{"name": "pump", "version": "1.0", "vulns": list(found), **more}]}


FLAW = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["1.1"], "description": "leaks"}


def test_vulnerable_version_fails_and_is_named() -> None:
    """With the version that mends it."""
    lines, status = audit().verdict(report(FLAW), {})
    assert status == 1
    assert "VULNERABLE: pump 1.0: PYSEC-2026-1, mended in 1.1" in lines[0]


@pytest.mark.parametrize("name", ["PYSEC-2026-1", "CVE-2026-1"])
def test_accepted_vulnerability_passes_with_its_reason(name: str) -> None:
    """Under any of its names."""
    lines, status = audit().verdict(report(FLAW), {name: "we never pump"})
    assert status == 0
    assert "accepted: pump 1.0: PYSEC-2026-1: we never pump" in lines[0]


def test_service_that_knows_no_package_is_told_in_one_line() -> None:
    """As behind a registry that has no such service: an audit that looked nothing up is none."""
    lines, status = audit().verdict({"dependencies": [{"name": "pump", "skip_reason": "not found"}]}, {})
    assert status == 0
    assert len(lines) == 1
    assert "NOT DONE" in lines[0]


@pytest.mark.parametrize("fault", ["no answer", "too slow"])
def test_service_that_does_not_answer_lets_the_build_go_on(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine without a network must be able to test."""

    def run(*arguments: Any, **options: Any) -> Any:
        if fault == "too slow":
            raise subprocess.TimeoutExpired("pip-audit", 60)
        return SimpleNamespace(stdout="", stderr="Traceback\nConnectionError: no route to host\n")

    assert audit().run(run) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "NOT DONE" in out


def test_answer_that_finds_a_flaw_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way from pip-audit's output to the exit status."""
    answer = SimpleNamespace(stdout=json.dumps(report(FLAW)), stderr="")
    assert audit().run(lambda *arguments, **options: answer) == 1
    assert "VULNERABLE" in capsys.readouterr().out


def test_list_of_accepted_ones_wants_a_reason() -> None:
    """An identifier alone would be a way to look away."""
    found = audit()
    found.accepted((DEPLOY / "accepted-vulnerabilities.txt").read_text())
    with pytest.raises(ValueError, match="PYSEC-2026-1 has no reason"):
        found.accepted("PYSEC-2026-1\n")
