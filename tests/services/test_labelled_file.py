"""Labelled files of one's own."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from streamlstm.errors import SchemaError, SettingsError
from streamlstm.services.labelled_file import read_task

ROWS = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a stream schema, a history, and a test file with labels in a column and as ranges."""
    (tmp_path / "s.toml").write_text('key = "pump"\n[features.flow]\n')
    times = pd.date_range("2026-01-01T00:00:00Z", periods=ROWS, freq="min")
    rows = {"pump": ["a", "b"] * (ROWS // 2), "time": times.map(lambda t: t.isoformat()), "flow": np.arange(ROWS)}
    pd.DataFrame(rows).to_csv(tmp_path / "history.csv", index=False)
    pd.DataFrame(rows | {"fault": ([0] * 9 + [1] * 3)}).to_csv(tmp_path / "test.csv", index=False)
    (tmp_path / "labels.csv").write_text("start,end,key\n2026-01-01T00:02:00Z,2026-01-01T00:04:00Z,a\n")
    return tmp_path


def labelled(folder: Path, labels: str | None = None, column: str | None = None) -> list[int]:
    """Return which records are labelled."""
    path = folder / labels if labels else None
    task = read_task(folder / "s.toml", [folder / "history.csv"], folder / "test.csv", path, column)
    assert (task.name, len(task.history), len(task.test)) == ("test", ROWS, ROWS)
    return np.flatnonzero(task.label).tolist()


def test_labels_in_a_column(folder: Path) -> None:
    """0 or 1 per row; the column is no feature."""
    assert labelled(folder, column="fault") == [9, 10, 11]


def test_labels_as_ranges_of_a_key(folder: Path) -> None:
    """Both ends included; rows of another key within are not labelled."""
    assert labelled(folder, "labels.csv") == [2, 4]


def test_labels_as_ranges_of_all_keys(folder: Path) -> None:
    """Without a key column, or with an empty cell."""
    (folder / "all.csv").write_text("start,end\n2026-01-01 00:02:00,2026-01-01 00:04:00\n")
    assert labelled(folder, "all.csv") == [2, 3, 4]
    (folder / "some.csv").write_text("start,end,key\n2026-01-01 00:02:00,2026-01-01 00:04:00,\n")
    assert labelled(folder, "some.csv") == [2, 3, 4]


def test_label_column_of_frames_labels_the_frame(folder: Path) -> None:
    """Any labelled row of an event labels it."""
    (folder / "s.toml").write_text("frame_samples = 4\n[features.flow]\n")
    task = read_task(folder / "s.toml", [folder / "history.csv"], folder / "test.csv", None, "fault")
    assert task.label.tolist() == [False, False, True]
    assert msgspec.json.decode(task.test[2].value)["flow"] == [8, 9, 10, 11]


def test_what_is_missing_or_wrong_is_named(folder: Path) -> None:
    """One sentence each."""
    with pytest.raises(SettingsError, match="either --labels"):
        labelled(folder)
    with pytest.raises(SettingsError, match="must not see the labels"):
        labelled(folder, column="flow")
    with pytest.raises(SchemaError, match="'wrong'"):
        labelled(folder, column="wrong")
    (folder / "odd.csv").write_text("from,to\n1,2\n")
    with pytest.raises(SchemaError, match="start and end"):
        labelled(folder, "odd.csv")
    (folder / "bad.csv").write_text("start,end\nyesterday,today-ish\n")
    with pytest.raises(SchemaError, match="column start"):
        labelled(folder, "bad.csv")
