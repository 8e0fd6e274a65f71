"""Records in Confluent's wire format: Avro, with the schema's number in front and the schema in a registry.

Needs ``pip install 'streamlstm[avro]'``. Each schema is asked for once, and looked at before it is used
(:mod:`streamlstm.adapters.avro_schema`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from streamlstm.adapters.avro_schema import Size, check_avro_schema
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import LogError, LogUnavailable, SettingsError

UNKNOWN_SCHEMA = 404  # the registry's status for a number it never gave out


def avro_parser(registry: Mapping[str, Any], schema: StreamSchema) -> Callable[[bytes], object]:
    """Return a function from a record's bytes to the event as plain Python objects.

    ``registry`` is the configuration of Confluent's client, with at least ``url``. The function raises
    ``ValueError`` for bytes that are no such record, :class:`LogUnavailable` while the registry cannot be
    reached, :class:`LogError` if it refuses us.
    """
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient
        from confluent_kafka.schema_registry.avro import AvroDeserializer
        from confluent_kafka.schema_registry.error import SchemaRegistryError
    except ImportError as error:
        raise SettingsError(f"Avro needs more packages: pip install 'streamlstm[avro]' ({error})") from error
    client = SchemaRegistryClient(dict(registry))
    deserialize = AvroDeserializer(client)
    unit = schema.timestamp_unit
    checked: set[int] = set()

    def parse(value: bytes) -> object:
        number = schema_number(value)
        try:
            if number not in checked:
                _check(client, client.get_schema(number), {})
                checked.add(number)
            found = deserialize(value, None)
        except SchemaRegistryError as error:
            if error.http_status_code == UNKNOWN_SCHEMA:
                raise ValueError(f"no such schema in the registry: {error}") from error
            kind = LogUnavailable if error.http_status_code >= 500 else LogError
            raise kind(f"schema registry {registry['url']}: {error}") from error
        except Exception as error:  # fastavro raises whatever the bytes lead it to; the HTTP client its own
            if type(error).__module__.startswith("httpx"):
                raise LogUnavailable(f"schema registry {registry['url']}: {error or type(error).__name__}") from error
            raise ValueError(f"not Avro in Confluent's wire format: {error or type(error).__name__}") from error
        if not isinstance(found, dict):
            raise ValueError(f"an Avro record is wanted, not {type(found).__name__}")  # noqa: TRY004, as all bad bytes
        return {name: _plain(field, unit) for name, field in found.items()}

    return parse


def schema_number(value: bytes) -> int:
    """Return the number in front of a record; raises ``ValueError`` if there is none.

    >>> schema_number(bytes([0, 0, 0, 1, 0]) + b"the rest")
    256
    """
    if len(value) < 5 or value[0] != 0:
        raise ValueError("not Avro in Confluent's wire format: a zero and the schema's number come first")
    return int.from_bytes(value[1:5], "big")


def _check(client: Any, schema: Any, known: dict[str, Size | None]) -> None:
    """Check a schema after those that it refers to."""
    for reference in schema.references or ():
        _check(client, client.get_version(reference.subject, reference.version).schema, known)
    check_avro_schema(schema.schema_str or "", known)


def _plain(value: object, unit: str) -> object:
    """Return what JSON would hold; moments in the schema's unit of time."""
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        per_second = {"s": 1, "ms": 1_000, "us": 1_000_000}.get(unit)
        return moment.isoformat() if per_second is None else moment.timestamp() * per_second
    if isinstance(value, date):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value
