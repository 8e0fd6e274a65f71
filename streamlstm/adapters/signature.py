"""The signature of a webhook request: who sent it, when, and that nothing was changed.

The header is ``Streamlstm-Signature: t=<unix seconds>,v1=<hex>``, where the hex digits are the HMAC-SHA256,
with the shared secret, of the time as written, a full stop, and the body as received. While a secret is
being replaced there is one ``v1`` for the new and one for the old; either will do. A receiver checks it so:

>>> import hashlib, hmac, time
>>> def is_genuine(header: str, body: bytes, secret: bytes, now_s: float, tolerance_s: float = 300) -> bool:
...     fields = [field.partition("=") for field in header.split(",")]
...     (sent_s,) = [value for name, _, value in fields if name == "t"]
...     expected = hmac.new(secret, f"{sent_s}.".encode() + body, hashlib.sha256).hexdigest()
...     signed = any(hmac.compare_digest(value, expected) for name, _, value in fields if name == "v1")
...     return signed and abs(now_s - int(sent_s)) <= tolerance_s

``body`` must be the bytes received, not JSON decoded and encoded again. The time stops a request that was
recorded from being sent again later; the header ``Idempotency-Key`` stops one that is sent again at once.

>>> now_s = time.time()
>>> header = signature(b'{"format":"streamlstm.alert.v1"}', [b"new secret", b"old secret"], now_s)
>>> is_genuine(header, b'{"format":"streamlstm.alert.v1"}', b"old secret", now_s)
True
>>> is_genuine(header, b'{"format":"streamlstm.alert.v2"}', b"old secret", now_s)
False
>>> is_genuine(header, b'{"format":"streamlstm.alert.v1"}', b"another secret", now_s)
False
>>> is_genuine(header, b'{"format":"streamlstm.alert.v1"}', b"old secret", now_s + 3600)
False
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

HEADER = "Streamlstm-Signature"


def signature(body: bytes, secrets: Sequence[bytes], now_s: float) -> str:
    """Return the header's value for a body sent at ``now_s`` (unix seconds), one ``v1`` per secret.

    >>> signature(b"{}", [b"secret"], 1700000000.5)
    't=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163'
    """
    sent_s = int(now_s)
    signed = f"{sent_s}.".encode() + body
    return ",".join(
        [f"t={sent_s}", *(f"v1={hmac.new(secret, signed, hashlib.sha256).hexdigest()}" for secret in secrets)]
    )
