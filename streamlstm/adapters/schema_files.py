"""Stream schemas on disk."""

from __future__ import annotations

from pathlib import Path

from streamlstm.core.schema import StreamSchema
from streamlstm.errors import SchemaError


def read_schema(path: Path) -> StreamSchema:
    """Read a stream schema; raises :class:`SchemaError` that names the file and the reason."""
    check_there(path)
    return StreamSchema.from_toml(path.read_text(encoding="utf-8", errors="replace"), str(path))


def check_there(path: Path) -> None:
    """Raise :class:`SchemaError` for a path that is no file."""
    if not path.is_file():
        raise SchemaError(f"{path}: there is no such file")
