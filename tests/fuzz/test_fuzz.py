"""A short run of each fuzz target, and what earlier runs found: ``make fuzz`` is the long one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tests.end_to_end.runs import ROOT
from tests.fuzz import targets
from tests.fuzz.__main__ import TARGETS

INPUTS = 2_500  # over all targets


def test_targets_of_the_command_are_those_there_are() -> None:
    """Each with its share of the inputs."""
    assert set(TARGETS) == set(targets.TARGETS)
    assert sum(target.share for target in targets.TARGETS.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_pass(name: str) -> None:
    """What the fuzzer starts from is harmless, in compiled code, too."""
    for seed in targets.TARGETS[name].seeds:
        targets.TARGETS[name].check(seed)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("schema", b'key = "machin\x98"\n[features.y]'),  # half of a surrogate pair in a name
        ("state", b"\x20\x00\xff\xff\xff"),  # a scaler beyond the array
        ("bundle", b"\x00\x02\x00[]"),
    ],
)
def test_input_that_once_failed_passes(name: str, found: bytes) -> None:
    """Found by fuzzing; the tests beside the mended code say more."""
    targets.TARGETS[name].check(found)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no build for this system")
def test_short_run_finds_nothing() -> None:
    """Coverage-guided, in processes of their own; the seed is fixed, so that a failure can be repeated."""
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", str(INPUTS), "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert done.stdout.count("no crash") == len(TARGETS)
