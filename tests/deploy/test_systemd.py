"""Units of the edge box: right by systemd's own checker, hardened, and back after any end. No systemd runs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy import ways
from tests.programs import program


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, with a program that exists here."""
    shutil.copytree(ways.COMMON_UNIT.parent, tmp_path / ways.COMMON_UNIT.parent.name)
    for unit in ways.UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(ways.PROGRAM, sys.executable))
    return [tmp_path / unit.name for unit in ways.UNITS]


def analyze(*words: object) -> str:
    """Run systemd-analyze; it must be content."""
    analyzer = program("systemd-analyze", "systemd")
    done = subprocess.run([analyzer, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_units_can_be_loaded(units: list[Path]) -> None:
    """No unknown name, no value that systemd would ignore with a line in a log."""
    assert len(units) == 3
    assert analyze("verify", *units).strip() == ""


def test_units_may_do_little(units: list[Path]) -> None:
    """On systemd's scale from 0, nothing, to 10, everything; below 2 is what it calls OK."""
    for unit in units:
        analyze("security", "--offline=true", "--threshold=20", unit)


@pytest.mark.parametrize("path", ways.UNITS, ids=lambda path: path.stem)
def test_units_come_back_and_write_to_one_directory(path: Path) -> None:
    """After any end, for ever; with SIGTERM and time to commit before."""
    unit = ways.unit(path)
    assert unit["Restart"] == "always"
    assert "KillSignal" not in unit
    assert float(unit["TimeoutStopSec"]) >= 30
    assert unit["User"] == "streamlstm"
    assert (unit["StateDirectory"], unit["ProtectSystem"]) == ("streamlstm", "strict")
    assert "StartLimitIntervalSec=0" in ways.COMMON_UNIT.read_text()
