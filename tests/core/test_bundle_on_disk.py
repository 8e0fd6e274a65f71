"""A bundle on disk: JSON and safetensors, never a pickle, and refused by name if anything is off."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import safetensors.numpy

from streamlstm.adapters.bundle_files import ARRAYS, HEAD, read_bundle, write_bundle
from streamlstm.core.bundle import Bundle
from streamlstm.errors import BundleError
from tests.builders import bundle


def test_bundle_from_disk_equals_the_one_written(bundle: Bundle, bundle_directory: Path) -> None:
    """Through JSON and safetensors the digest, the report and the schema's order stay."""
    again = read_bundle(bundle_directory)
    assert again.digest == bundle.digest
    assert again.report == bundle.report
    assert again.schema == bundle.schema
    assert list(again.schema.features) == list(bundle.schema.features)


def test_file_that_is_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    """In place of the arrays or of the JSON, a pickle is not opened as one."""

    class Bomb:
        """Leaves a file where it is unpickled."""

        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    for name, reason in ((ARRAYS, "not a safetensors file"), (HEAD, "not JSON")):
        directory = tmp_path / name
        write_bundle(bundle(), directory, "")
        (directory / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(BundleError, match=f"{name}: {reason}"):
            read_bundle(directory)
    assert not (tmp_path / "exploded").exists()


def test_file_that_was_edited_or_lost_is_refused_by_name(tmp_path: Path) -> None:
    """A weight edited on disk fails the digest, a lost file is named with the way to make one."""
    write_bundle(bundle(), tmp_path / "model", "")
    path = tmp_path / "model" / ARRAYS
    arrays = safetensors.numpy.load(path.read_bytes())
    path.write_bytes(safetensors.numpy.save(arrays | {"band": arrays["band"] * 2}))
    with pytest.raises(BundleError, match="digest does not match"):
        read_bundle(tmp_path / "model")
    head = tmp_path / "model" / HEAD
    head.write_text(json.dumps(json.loads(head.read_text()))[:-1])
    with pytest.raises(BundleError, match="not JSON"):
        read_bundle(tmp_path / "model")
    head.unlink()
    with pytest.raises(BundleError, match=f"{HEAD} is missing; make one with"):
        read_bundle(tmp_path / "model")
