"""A bundle on disk: a directory of ``bundle.json``, ``model.safetensors`` and ``report.html``."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import safetensors.numpy
from safetensors import SafetensorError

from streamlstm.core.bundle import Bundle, from_parts, to_parts
from streamlstm.errors import BundleError

HEAD = "bundle.json"
ARRAYS = "model.safetensors"
REPORT = "report.html"
MAX_HEAD_BYTES = 256 << 20  # a million per-key scalers fit
MAX_ARRAYS_BYTES = 1 << 30  # 48 hidden units take half a megabyte


def check_place(directory: Path) -> None:
    """Refuse a directory that cannot be made, or holds something else than a bundle. Called before a long training."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())) and not (directory / HEAD).is_file():
        raise BundleError(f"{directory} exists and holds no bundle; it is left as it is: choose another --out")
    above = next(place for place in directory.resolve().parents if place.exists())
    try:
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise BundleError(f"{directory} cannot be made: {above}: {error.strerror}; choose another --out") from error


def write_bundle(bundle: Bundle, directory: Path, report_html: str) -> None:
    """Write a bundle; a reader sees the old directory or the new one, never half of it.

    Raises :class:`BundleError` if ``directory`` exists and is no bundle.
    """
    directory = directory.resolve()  # through a link, into the directory it points to
    check_place(directory)
    data, arrays = to_parts(bundle)
    fresh = directory.with_name(f".{directory.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / HEAD).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    (fresh / ARRAYS).write_bytes(safetensors.numpy.save(arrays))
    (fresh / REPORT).write_text(report_html)
    replaced = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    if directory.exists():
        directory.rename(replaced)
    fresh.rename(directory)
    shutil.rmtree(replaced, ignore_errors=True)


def read_bundle(directory: Path) -> Bundle:
    """Read and check a bundle; raises :class:`BundleError` that names the file and the reason."""
    head, arrays = directory / HEAD, directory / ARRAYS
    for path in (head, arrays):
        if not path.is_file():
            raise BundleError(
                f"{directory} is no model bundle: {path.name} is missing; make one with `streamlstm train`"
            )
    for path, most in ((head, MAX_HEAD_BYTES), (arrays, MAX_ARRAYS_BYTES)):
        if path.stat().st_size > most:
            raise BundleError(f"{path} has {path.stat().st_size} bytes; at most {most} are read")
    try:
        return decode_bundle(head.read_bytes(), arrays.read_bytes())
    except BundleError as error:
        raise BundleError(f"{directory}: {error}") from error


def decode_bundle(head: bytes, arrays: bytes) -> Bundle:
    """Return the bundle in the bytes of its two files; raises :class:`BundleError`."""
    try:
        data = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{HEAD}: not JSON: {error}") from error
    try:
        found = safetensors.numpy.load(arrays)
    except (SafetensorError, KeyError) as error:  # KeyError: a type of numbers that numpy has not
        raise BundleError(f"{ARRAYS}: not a safetensors file: {error}") from error
    return from_parts(data, found)
