"""Look the pinned versions up among known vulnerabilities: ``python deploy/audit.py``, or ``make audit``.

Ends with 1 for a vulnerability that ``deploy/accepted-vulnerabilities.txt`` does not list with a reason. Where the
service that knows them does not answer, it says so in one line and ends with 0: a machine without a network must be
able to test. Asks nothing but names and versions.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CONSTRAINTS = HERE / "constraints.txt"
ACCEPTED = HERE / "accepted-vulnerabilities.txt"
TIME_LIMIT_S = 60
PIP_AUDIT = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]


def accepted(text: str) -> dict[str, str]:
    r"""Return the accepted vulnerabilities, each with its reason; raises ``ValueError`` for one without.

    >>> accepted("# none yet\nPYSEC-2026-1  we never unpickle")
    {'PYSEC-2026-1': 'we never unpickle'}
    """
    found = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, reason = line.strip().partition(" ")
        if not reason.strip():
            raise ValueError(f"{ACCEPTED.name}: {name} has no reason")
        found[name] = reason.strip()
    return found


def verdict(report: Mapping[str, Any], known: Mapping[str, str]) -> tuple[list[str], int]:
    """Return lines to print and the exit status, from pip-audit's report."""
    dependencies = report["dependencies"]
    looked_up = [d for d in dependencies if "skip_reason" not in d]
    if not looked_up:
        return [not_audited("it knows none of the packages")], 0
    lines, status = [], 0
    for dependency in looked_up:
        for found in dependency["vulns"]:
            names = {found["id"], *found.get("aliases", ())}
            reason = next((known[name] for name in sorted(names) if name in known), None)
            place = f"{dependency['name']} {dependency['version']}: {found['id']}"
            if reason is None:
                status = 1
                fixed = ", ".join(found.get("fix_versions", ())) or "no version yet"
                lines.append(f"audit: VULNERABLE: {place}, mended in {fixed}")
            else:
                lines.append(f"audit: accepted: {place}: {reason}")
    lines.append(f"audit: {len(looked_up)} of {len(dependencies)} pinned packages looked up")
    return lines, status


def not_audited(reason: str) -> str:
    """Return the one line for a machine where nothing can be looked up."""
    return f"audit: NOT DONE: the vulnerability service does not answer here ({reason}); the build goes on"


def run(audit: Callable[..., Any] = subprocess.run) -> int:
    """Audit, print, and return the exit status."""
    known = accepted(ACCEPTED.read_text(encoding="utf-8"))
    command = [*PIP_AUDIT, "--timeout=5", "--requirement", str(CONSTRAINTS)]
    try:
        done = audit(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
        report = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        print(not_audited(f"nothing within {TIME_LIMIT_S} s"))
        return 0
    except ValueError:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        print(not_audited(said[-1].strip()[:160]))
        return 0
    lines, status = verdict(report, known)
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(run())
