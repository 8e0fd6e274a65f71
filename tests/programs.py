"""Programs that tests run and Python's packages do not bring."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str, package: str) -> str:
    """Return where a program is; where it is not the test skips, or fails with ``CI=true``."""
    path = shutil.which(name)
    if path is None:
        line = f"no {name} here (Debian: apt-get install {package})"
        if os.environ.get("CI") == "true":
            pytest.fail(line, pytrace=False)
        pytest.skip(line)
    return path
