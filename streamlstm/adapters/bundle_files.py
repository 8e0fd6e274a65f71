"""A bundle on disk: a directory of ``bundle.json``, ``model.safetensors`` and ``report.html``."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import safetensors.numpy
from safetensors import SafetensorError

from streamlstm.core.bundle import Bundle, from_parts, to_parts
from streamlstm.errors import BundleError

HEAD = "bundle.json"
ARRAYS = "model.safetensors"
REPORT = "report.html"
MAX_HEAD_BYTES = 256 << 20  # a million per-key scalers fit


def check_place(directory: Path) -> None:
    """Refuse a directory that holds something else than a bundle. Called before a long training, too."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())) and not (directory / HEAD).is_file():
        raise BundleError(f"{directory} exists and holds no bundle; it is left as it is: choose another --out")


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
    if head.stat().st_size > MAX_HEAD_BYTES:
        raise BundleError(f"{head} has {head.stat().st_size} bytes; at most {MAX_HEAD_BYTES} are read")
    try:
        return from_parts(json.loads(head.read_bytes()), safetensors.numpy.load(arrays.read_bytes()))
    except BundleError as error:
        raise BundleError(f"{directory}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{head}: not JSON: {error}") from error
    except SafetensorError as error:
        raise BundleError(f"{arrays}: not a safetensors file: {error}") from error
