"""The same bits on any CPU: code for the oldest x86-64 gives this machine's scores."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamlstm.core import compiled
from streamlstm.core.advance import advance
from streamlstm.core.arithmetic import log32
from streamlstm.core.bundle import Bundle
from streamlstm.core.channels.novelty import measure, nearest_mean
from streamlstm.core.log import Record
from streamlstm.core.scorer import Scorer
from streamlstm.core.step import add_products, lstm_step
from tests.builders import changed, make_feed

ROOT = Path(__file__).parents[2]

SCRIPT = """
import hashlib, json, sys
from pathlib import Path

from streamlstm.adapters.bundle_files import read_bundle
from streamlstm.core.advance import advance
from streamlstm.core.log import Record
from streamlstm.core.scorer import Scorer

records = [Record("events", 0, i, 1 << 41, None, line.encode()) for i, line in enumerate(json.load(sys.stdin))]
scorer = Scorer(read_bundle(Path(sys.argv[1])))
outcome = scorer.score(scorer.read(records), {})
digest = hashlib.sha256()
for column in (*outcome.results, *outcome.rows):
    digest.update(column.tobytes())
code = "".join(advance.inspect_asm().values())
print(json.dumps({"digest": digest.hexdigest(), "wide": "ymm" in code or "zmm" in code or "fma" in code}))
"""


def make_records() -> list[Record]:
    """Return a feed with spikes and a shift, so that alerts, shares and adapted tails are among the results."""
    feed = make_feed(400, ("a", "b"), seed=13)
    for at in range(300, 320, 2):
        feed[at] = changed(feed[at], flow=14.0)
    return [*feed[:600], *(changed(record, pressure=2.4) for record in feed[600:])]


def digest_here(bundle: Bundle, records: list[Record]) -> str:
    """Return the digest of all results and rows, computed in this process."""
    scorer = Scorer(bundle)
    outcome = scorer.score(scorer.read(records), {})
    assert len(outcome.alerts) >= 2
    assert np.isfinite(outcome.results.score).sum() > 600
    digest = hashlib.sha256()
    for column in (*outcome.results, *outcome.rows):
        digest.update(column.tobytes())
    return digest.hexdigest()


def test_code_for_the_plainest_cpu_gives_the_same_bits(bundle: Bundle, bundle_directory: Path, tmp_path: Path) -> None:
    """Compiled for SSE2 alone, without wider registers or fused operations, every result is the same byte."""
    records = make_records()
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(bundle_directory)],
        input=json.dumps([record.value.decode() for record in records]),
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            "NUMBA_CPU_NAME": "generic",
            "NUMBA_CPU_FEATURES": "",
            "NUMBA_CACHE_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(found.stdout)
    assert not result["wide"]
    assert result["digest"] == digest_here(bundle, records)


def test_numeric_code_is_compiled_without_fastmath() -> None:
    """No function may be reordered or fused by the compiler, nor raise where IEEE has an answer."""
    for function in (advance, lstm_step, add_products, log32, measure, nearest_mean):
        options = function.targetoptions
        assert options["nopython"]
        assert not options["fastmath"]
        assert options["error_model"] == "numpy"


def test_cache_directory_belongs_to_the_source_and_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine code lies in a private directory named after the core's source."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    directory = compiled._cache_directory()
    assert directory is not None
    assert directory.parent == tmp_path / "streamlstm"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert compiled._cache_directory() == directory


def test_cache_directory_that_cannot_be_made_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written each start compiles anew; it does not fail."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert compiled._cache_directory() is None
