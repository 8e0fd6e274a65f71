"""Every package that an installation brings is pinned, and what is installed here is what is pinned."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "deploy" / "constraints.txt").read_text(), re.M)
}
OURS = canonicalize_name("streamlstm")
COMES_WITH_PYTHON = {"pip"}  # it installs; a pin would have it replace itself


def installed(name: str, extras: frozenset[str], found: dict[str, str], seen: set[tuple[str, frozenset[str]]]) -> None:
    """Collect the versions of a package and of all that it needs, transitively, on this machine."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    package = distribution(name)
    if name != OURS:
        found[name] = package.version
    for text in package.requires or ():
        needed = Requirement(text)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            installed(canonicalize_name(needed.name), frozenset(needed.extras), found, seen)


def test_every_package_that_gets_installed_is_pinned_to_what_is_installed() -> None:
    """With all extras, and what those need in turn; a local version (+cpu) is the same version."""
    found: dict[str, str] = {}
    installed(OURS, frozenset({"dev"}), found, set())
    assert len(found) > 80
    for name in COMES_WITH_PYTHON:
        found.pop(name, None)
    wrong = {name: version for name, version in found.items() if version.partition("+")[0] != PINS.get(name)}
    assert not wrong, f"pin these in deploy/constraints.txt, or install what it says: {wrong}"


def test_pins_hold_for_the_build_and_the_installation_of_ci() -> None:
    """What CI runs installs with the constraints, setuptools for the build among them."""
    planned = subprocess.run(
        ["make", "--dry-run", "--always-make", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    installs = [line for line in planned.splitlines() if "--editable" in line]
    assert len(installs) == 2
    assert all("PIP_CONSTRAINT=deploy/constraints.txt" in line for line in installs)
    assert "setuptools" in PINS
    assert {"make test", "make audit"} <= set((ROOT / ".ci" / "run").read_text().splitlines())


def test_no_pin_is_left_over() -> None:
    """A pin of what nobody needs any more is audited for nothing."""
    found: dict[str, str] = {}
    installed(OURS, frozenset({"dev"}), found, set())
    assert set(PINS) - set(found) <= ELSEWHERE | {"setuptools"}


ELSEWHERE: set[str] = set()  # needed on other systems or versions of Python only
