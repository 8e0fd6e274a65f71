"""Imports go one way, names say what is in them, and no module is too long to read."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "streamlstm"
MAX_LINES = 450
VAGUE = {"utils", "util", "helpers", "helper", "manager", "base", "common", "misc"}

# What the pure core may use besides itself: arithmetic, data and decoding; no clock, file, network or log.
PURE = {
    "__future__",
    "array",
    "bisect",
    "collections",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "inspect",
    "itertools",
    "math",
    "msgspec",
    "numba",
    "numpy",
    "struct",
    "tomllib",
    "typing",
    "zlib",
}
COMPILED_ONLY = {"tempfile"} | {"os", "pathlib"}  # core/compiled.py finds a place for machine code


def modules(room: str) -> list[Path]:
    """Return the files of a room, or of the whole package."""
    return sorted((PACKAGE / room).rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where things come from"
            yield node.module or ""
            if node.module in ("streamlstm", "simulators"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_used(path: Path) -> set[str]:
    """Return the rooms of streamlstm that a file imports from, such as ``core``."""
    own = [name for name in imports_of(path) if name.startswith("streamlstm.")]
    return {name.split(".")[1] for name in own}


def test_rooms_are_where_this_file_looks_for_them() -> None:
    """The tests below look at real files."""
    assert len(modules("core")) > 20
    assert "core" in rooms_used(PACKAGE / "training" / "train.py")


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("core", {"core", "errors"}),
        ("training", {"core", "errors", "training"}),
        ("evaluation", {"core", "errors", "training", "evaluation"}),
        ("dashboard", {"core", "errors", "dashboard"}),
        ("adapters", {"core", "errors", "adapters", "__version__"}),
        ("services", {"core", "errors", "adapters", "dashboard", "training", "evaluation", "services", "__version__"}),
    ],
)
def test_room_imports_only_from_rooms_below(room: str, allowed: set[str]) -> None:
    """Core from nowhere; training, adapters and dashboard from the core; services from all of these."""
    for path in modules(room):
        assert rooms_used(path) <= allowed, path


@pytest.mark.parametrize("room", ["core", "dashboard"])
def test_pure_room_imports_nothing_that_touches_the_world(room: str) -> None:
    """Neither torch nor files, clocks, sockets, threads or logs."""
    for path in modules(room):
        found = {name.split(".")[0] for name in imports_of(path)} - {"streamlstm"}
        allowed = PURE | COMPILED_ONLY if path.name == "compiled.py" else PURE
        assert found <= allowed, path


@pytest.mark.parametrize("room", ["core", "dashboard"])
def test_pure_room_reads_no_clock_environment_or_random_state(room: str) -> None:
    """What modules that are allowed could still do: now(), environ, print, open, numpy's global randomness."""
    forbidden = {"now", "utcnow", "today", "environ", "getenv", "print", "open", "input", "seed", "rand", "randn"}
    for path in modules(room):
        if path.name == "compiled.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "attr", None) or getattr(called, "id", None)
            assert name not in forbidden, f"{path}:{getattr(node, 'lineno', 0)}"


def test_nothing_but_the_command_line_imports_the_simulators() -> None:
    """A detector that knows its feeds would be tested by itself."""
    for path in modules(""):
        if path.name != "cli.py":
            assert not any(name.split(".")[0] == "simulators" for name in imports_of(path)), path


@pytest.mark.parametrize(
    "module",
    [
        "streamlstm.core.scorer",
        "streamlstm.adapters.bundle_files",
        "streamlstm.services.dashboard",
        "streamlstm.cli",
    ],
)
def test_import_of_what_scores_does_not_load_torch(module: str) -> None:
    """A scorer starts without the trainer's libraries, in a process of its own."""
    code = f"import sys, {module}; print(sorted({{'torch', 'sklearn', 'pandas', 'plotly'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_module_names_say_what_is_in_them() -> None:
    """No drawer for odds and ends."""
    for path in modules(""):
        assert path.stem not in VAGUE, path
        assert path.parent.name not in VAGUE, path


def test_modules_are_short_enough_to_be_read() -> None:
    """Whatever grows beyond this is two modules."""
    for path in modules(""):
        assert len(path.read_text().splitlines()) <= MAX_LINES, path
