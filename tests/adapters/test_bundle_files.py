"""A bundle on disk: whole or not at all, checked when it is read, and never made of pickles."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.numpy

from streamlstm.adapters import bundle_files
from streamlstm.adapters.bundle_files import ARRAYS, HEAD, REPORT, read_bundle, write_bundle
from streamlstm.core.bundle import VERSION, Bundle
from streamlstm.core.scorer import Scorer
from streamlstm.errors import BundleError
from tests import builders


def scores(bundle: Bundle) -> list[bytes]:
    """Return the scores of a short feed."""
    return [output.value for output in builders.run_polls(Scorer(bundle), [builders.make_feed(100)]).scores]


def test_bundle_written_and_read_scores_the_same(bundle: Bundle, tmp_path: Path) -> None:
    """Nothing is lost on disk: same digest, same schema, same scores, bit for bit."""
    write_bundle(bundle, tmp_path / "model", "")
    found = read_bundle(tmp_path / "model")
    assert (found.digest, found.schema, found.report) == (bundle.digest, bundle.schema, bundle.report)
    assert scores(found) == scores(bundle)


def test_bundle_is_three_files_without_code(bundle: Bundle, tmp_path: Path) -> None:
    """JSON, safetensors and a page to read; the JSON tells the digest."""
    write_bundle(bundle, tmp_path / "model", "<html>report</html>")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [HEAD, ARRAYS, REPORT]
    assert json.loads((tmp_path / "model" / HEAD).read_text())["digest"] == bundle.digest
    assert (tmp_path / "model" / REPORT).read_text() == "<html>report</html>"


def test_write_over_a_bundle_replaces_it_and_leaves_no_litter(bundle: Bundle, tmp_path: Path) -> None:
    """A new training run takes the place of the old one."""
    write_bundle(bundle, tmp_path / "model", "")
    write_bundle(builders.expiring_bundle(), tmp_path / "model", "")
    assert read_bundle(tmp_path / "model").name == builders.expiring_bundle().name
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_write_that_fails_leaves_the_old_bundle(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk while writing must not cost the bundle that was there; the next try cleans up."""
    write_bundle(bundle, tmp_path / "model", "")

    def no_room(arrays: object) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save", no_room)
        with pytest.raises(OSError, match="No space left"):
            write_bundle(builders.expiring_bundle(), tmp_path / "model", "")
    assert read_bundle(tmp_path / "model").name == bundle.name
    write_bundle(builders.expiring_bundle(), tmp_path / "model", "")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_write_keeps_the_old_bundle_until_the_new_one_is_in_its_place(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the process dies, a whole bundle is on disk, and never half of one in the place."""
    write_bundle(bundle, tmp_path / "model", "")
    rename, whole = Path.rename, []

    def watched(path: Path, target: Path) -> Path:
        whole.append(sorted(read_bundle(found.parent).name for found in tmp_path.rglob(HEAD)))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    write_bundle(builders.expiring_bundle(), tmp_path / "model", "")
    assert whole == [sorted([bundle.name, builders.expiring_bundle().name])] * 2


def test_write_makes_missing_directories(bundle: Bundle, tmp_path: Path) -> None:
    """The place to write to need not exist; an empty directory will do as well."""
    (tmp_path / "empty").mkdir()
    for directory in (tmp_path / "a" / "b" / "model", tmp_path / "empty"):
        write_bundle(bundle, directory, "")
        assert read_bundle(directory).name == bundle.name


def test_write_over_something_else_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """A directory that holds no bundle may hold anything; it is left as it is."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match=r"holds no bundle; it is left as it is: choose another --out"):
        write_bundle(bundle, tmp_path, "")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("missing", [HEAD, ARRAYS])
def test_read_without_one_of_the_files_names_it(bundle_directory: Path, tmp_path: Path, missing: str) -> None:
    """The message names what is missing, and how to get a bundle."""
    for name in {HEAD, ARRAYS} - {missing}:
        (tmp_path / name).write_bytes((bundle_directory / name).read_bytes())
    with pytest.raises(BundleError, match=rf"is no model bundle: {missing} is missing; .*streamlstm train"):
        read_bundle(tmp_path)


def cut(data: bytes) -> bytes:
    """Lose the second half."""
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    """Change one bit of the last number."""
    return data[:-1] + bytes([data[-1] ^ 1])


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    """Return a change of the first occurrence of a text."""

    def change(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode(), 1)

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (HEAD, cut, "not JSON"),
        (HEAD, lambda data: b"[" * 100_000, "not JSON"),
        (HEAD, lambda data: b"\xff", "not JSON"),
        (HEAD, lambda data: b"[]", "no streamlstm bundle"),
        (HEAD, replaced(f'"version": {VERSION}', f'"version": {VERSION + 1}'), f"bundle version {VERSION + 1}"),
        (HEAD, replaced('"hidden": 16', '"hidden": 20'), "shape"),
        (HEAD, replaced('"hidden": 16', '"hidden": "many"'), "hidden"),
        (HEAD, replaced('"alarm_rate": 0.001', '"alarm_rate": 0.002'), "digest does not match"),
        (ARRAYS, cut, "not a safetensors file"),
        (ARRAYS, lambda data: b"", "not a safetensors file"),
        (ARRAYS, lambda data: b"\x80\x04K\x01.", "not a safetensors file"),
        (ARRAYS, replaced('"F32"', '"F8_E4M3"'), "not a safetensors file"),
        (ARRAYS, flip, "digest does not match"),
    ],
)
def test_read_of_a_damaged_bundle_says_what_is_wrong(
    bundle_directory: Path, tmp_path: Path, name: str, change: Callable[[bytes], bytes], message: str
) -> None:
    """A bundle that is not exactly what was written is refused, never used in part."""
    for file in (HEAD, ARRAYS):
        data = (bundle_directory / file).read_bytes()
        (tmp_path / file).write_bytes(change(data) if file == name else data)
    with pytest.raises(BundleError, match=rf"{tmp_path}.*{message}"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("limit", ["MAX_HEAD_BYTES", "MAX_ARRAYS_BYTES"])
def test_read_of_a_huge_file_is_refused(bundle_directory: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """A wrong file is not read into memory before it is known to be one."""
    monkeypatch.setattr(bundle_files, limit, 100)
    with pytest.raises(BundleError, match="at most 100 are read"):
        read_bundle(bundle_directory)


def test_write_of_two_processes_does_not_mix(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process prepares its bundle in a directory of its own."""
    write_bundle(bundle, tmp_path / "model", "")
    half_written = tmp_path / f".model.{os.getpid() + 1}.new"
    half_written.mkdir()
    write_bundle(builders.expiring_bundle(), tmp_path / "model", "")
    assert half_written.is_dir()
    assert read_bundle(tmp_path / "model").name == builders.expiring_bundle().name
