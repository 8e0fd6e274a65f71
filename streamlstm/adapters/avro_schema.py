"""Avro schemas that a decoder must not be given: those with which a few bytes cost time or memory without end.

A schema comes from whoever may write to the registry. One that contains itself lets the decoder recurse until the
process dies; a list of things that take no bytes may have any length; records of records of nothing double with
each level. An event is flat, so nothing is lost by refusing them.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

MOST_VALUES = 100_000  # in one record, lists counted once
LEAST_BYTES = {"null": 0, "float": 4, "double": 8}
SIMPLE = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}


class Size(NamedTuple):
    """How many values a type reads, lists counted once, and how many bytes it takes at least."""

    values: int
    least_bytes: int


def check_avro_schema(text: str, known: dict[str, Size | None] | None = None) -> None:
    """Raise ``ValueError`` for a schema that no event has; ``known`` gains the sizes of the types it names."""
    try:
        _size({} if known is None else known, json.loads(text))
    except RecursionError as error:
        raise ValueError("the schema is nested without end") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no Avro schema: {error!r}") from error


def _size(known: dict[str, Size | None], node: Any) -> Size:
    if isinstance(node, str):
        return _named(known, node)
    if isinstance(node, list):
        return Size(1 + max((_size(known, branch).values for branch in node), default=0), 1)
    kind = node["type"]
    if kind in ("record", "error"):
        return _record(known, node)
    if kind in ("array", "map"):
        item = _size(known, node["items" if kind == "array" else "values"])
        if kind == "array" and item.least_bytes == 0:
            raise ValueError("the schema has a list of values that take no bytes")
        return Size(1 + item.values, 1)
    if kind in ("enum", "fixed"):
        known[_short(node["name"])] = size = Size(1, 1 if kind == "enum" else int(node["size"]))
        return size
    return _size(known, kind)


def _record(known: dict[str, Size | None], node: Any) -> Size:
    name = _short(node["name"])
    known[name] = None  # until all of it is seen
    fields = [_size(known, field["type"]) for field in node["fields"]]
    size = Size(1 + sum(field.values for field in fields), sum(field.least_bytes for field in fields))
    if size.values > MOST_VALUES:
        raise ValueError(f"the schema has more than {MOST_VALUES} values in a record")
    known[name] = size
    return size


def _named(known: dict[str, Size | None], name: str) -> Size:
    if name in SIMPLE:
        return Size(1, LEAST_BYTES.get(name, 1))
    size = known[_short(name)]
    if size is None:
        raise ValueError(f"the schema's type {_short(name)!r} contains itself")
    return size


def _short(name: str) -> str:
    return name.rpartition(".")[2]
