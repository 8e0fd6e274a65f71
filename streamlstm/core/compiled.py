"""How the numeric core is compiled: one decorator, strict IEEE arithmetic, a cache that cannot be stale.

Every function of the scoring path works on one event at a time and is compiled by numba without
``fastmath``: the compiler may not reorder or fuse a sum. So an event's result cannot depend on
the batch it came in, nor on the width of the machine's vector units (measured: the same bits from
SSE2, AVX2 and AVX-512 code). Tensor libraries give no such promise: their kernels change with
the number of rows, and the last elements of an array take another path than the first.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config

Function = TypeVar("Function", bound=Callable[..., object])


def _cache_directory() -> Path | None:
    """Return a directory for machine code that belongs to exactly this source.

    Numba notices a change in a function's own file, but not in the files it calls into; so the
    directory is named after a digest of all of them. None where no private directory can be made
    (a read-only home, or none): then each start compiles anew, some seconds.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    root = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        directory = Path(root).expanduser() / "streamlstm" / digest.hexdigest()[:16]
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()  # it may be there, and read-only
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return directory


_CACHE = _cache_directory()
if _CACHE is not None:
    config.CACHE_DIR = str(_CACHE)  # type: ignore[attr-defined]  # numba makes its settings at import


_OPTIONS: dict[str, Any] = {"cache": _CACHE is not None, "error_model": "numpy", "fastmath": False, "nogil": True}


def compiled(function: Function) -> Function:
    """Compile a numeric function of the scoring path: no Python objects, no fastmath, IEEE division.

    It can make no arrays: so numba need not count references to them, which took a third of the time of an event.
    """
    return cast(Function, numba.njit(**(_OPTIONS | {"_nrt": False}))(function))


def inlined(function: Function) -> Function:
    """Compile in the same way a function whose code is put where it is called.

    A call passes each array of a tuple as seven words or more: those of parameters and results, some five hundred at
    each step of the walk, took a sixth of the time of an event.
    """
    return cast(Function, numba.njit(**(_OPTIONS | {"_nrt": False, "inline": "always"}))(function))


def compiled_with_arrays(function: Function) -> Function:
    """Compile in the same way a function that makes arrays."""
    return cast(Function, numba.njit(**_OPTIONS)(function))
