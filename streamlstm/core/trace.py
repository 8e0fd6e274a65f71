"""Trace context: who asked for an event to be told, carried on to its score and alerts (W3C Trace Context).

The headers go on as they came. No span is made of ours: an event a span would be more work than the event.
"""

from __future__ import annotations

from streamlstm.core.log import Headers

PARENT, STATE = "traceparent", "tracestate"
PARENT_BYTES = 55  # version-trace-parent-flags, in hexadecimal
STATE_BYTES = 512  # what the standard asks all to carry; a longer one could make an output record too large to write
HEX = frozenset(b"0123456789abcdef")


def trace_headers(headers: Headers) -> Headers:
    """Return the trace context among a record's headers; empty if there is none, or none that can be read.

    A ``tracestate`` goes on only with a ``traceparent``, and only up to 512 printable bytes.

    >>> parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    >>> trace_headers((("source", b"x"), ("traceparent", parent), ("tracestate", b"a=1"))) == (
    ...     ("traceparent", parent), ("tracestate", b"a=1"))
    True
    >>> trace_headers((("traceparent", b"nonsense"), ("tracestate", b"a=1")))
    ()
    """
    if not headers:
        return ()
    found = dict(headers)
    parent, state = found.get(PARENT, b""), found.get(STATE, b"")
    if not is_parent(parent):
        return ()
    return ((PARENT, parent), (STATE, state)) if is_state(state) else ((PARENT, parent),)


def is_parent(value: bytes) -> bool:
    """Return whether a value is a ``traceparent``: 2, 32, 16 and 2 hexadecimal digits, ids not all zero."""
    parts = value.split(b"-")
    return (
        len(value) == PARENT_BYTES
        and [len(part) for part in parts] == [2, 32, 16, 2]
        and all(HEX.issuperset(part) for part in parts)
        and parts[0] != b"ff"
        and any(parts[1].strip(b"0"))
        and any(parts[2].strip(b"0"))
    )


def is_state(value: bytes) -> bool:
    """Return whether a value may go on as ``tracestate``, also as a header of an HTTP request."""
    return 0 < len(value) <= STATE_BYTES and value.strip() == value and all(0x20 <= byte < 0x7F for byte in value)
