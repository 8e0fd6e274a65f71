"""The signature, and the snippet with which a receiver checks it."""

from __future__ import annotations

import doctest

from streamlstm.adapters import signature


def test_verification_snippet_run_as_documented_does_what_it_shows() -> None:
    """The snippet in the documentation is run, exactly as it stands there, on signatures we make."""
    results = doctest.testmod(signature)

    assert results.attempted >= 8
    assert results.failed == 0


def test_signature_two_secrets_has_one_v1_each() -> None:
    """While a secret is replaced, a receiver with either one can check."""
    both = signature.signature(b"body", [b"new", b"old"], 5.9)

    new, old = (signature.signature(b"body", [secret], 5.0).partition(",")[2] for secret in (b"new", b"old"))
    assert both == f"t=5,{new},{old}"
