"""Training on two processes: torchrun starts them, gradients are averaged, and one bundle is written."""

from __future__ import annotations

from pathlib import Path

from streamlstm.adapters.bundle_files import read_bundle
from streamlstm.core.scorer import Scorer
from tests import builders
from tests.end_to_end import runs

STREAM = 'key = "sensor"\ntimestamp = "time"\ntimestamp_unit = "ms"\n[features.flow]\n[features.pressure]\n'


def test_two_processes_train_one_bundle_that_scores(tmp_path: Path) -> None:
    """Both processes train; only the first one writes and speaks."""
    (tmp_path / "stream.toml").write_text(STREAM)
    values = [record.value for record in builders.make_feed(300, ("a", "b", "c"))]
    (tmp_path / "history.jsonl").write_bytes(b"\n".join(values))
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    tiny = ("--updates", 20, "--hidden", 8, "--lanes", 4)
    files = ("--stream", "stream.toml", "--history", "history.jsonl", "--out", "model")
    process = runs.start(*launcher, "-m", "streamlstm", "train", *files, *tiny, cwd=tmp_path)
    status, errors = runs.finish(process)
    assert status == 0, errors
    assert errors.count("] trained ") == 1
    assert "Traceback" not in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "model", "stream.toml"]
    bundle = read_bundle(tmp_path / "model")
    assert (bundle.report["events"], bundle.report["updates"]) == (900, 20)
    scores = builders.run_polls(Scorer(bundle), [builders.make_feed(100, start=300)]).score_records
    assert {record.status for record in scores} == {"warming_up", "scored"}
