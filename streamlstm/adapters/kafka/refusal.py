"""What a failed connection means: who refused whom, why, and what to do."""

from __future__ import annotations

import os
import re
import ssl

from kafka import errors

from streamlstm.errors import SettingsError

# What OpenSSL says when the peer does not take our certificate, or wants one.
OF_OUR_CERTIFICATE = re.compile(
    "ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_|HANDSHAKE_FAILURE|ACCESS_DENIED)"
)
# OpenSSL's numbers for what is wrong with a certificate (x509_vfy.h).
EXPIRED, NOT_YET_VALID, OTHER_HOSTNAME, OTHER_ADDRESS, REVOKED = 10, 9, 62, 64, 23
TLS_ALERT = 0x15  # first byte of a TLS record that says what is wrong; read as the length of a Kafka message


def root_of(error: BaseException) -> BaseException:
    """Return the error under the ones that kafka-python wraps around it."""
    for inner in (*error.args, error.__cause__, error.__context__):
        if isinstance(inner, BaseException):
            return root_of(inner)
    return error


def is_refusal(error: BaseException) -> bool:
    """Say whether trying again cannot help: a log-in or a certificate was refused, or settings are wrong."""
    root = root_of(error)
    if isinstance(root, ssl.SSLError):
        return not isinstance(root, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError))
    if isinstance(root, OSError):
        return False
    if isinstance(root, errors.InvalidReceiveError):
        return _is_tls_alert(root)
    return not isinstance(root, (errors.RetriableError, errors.KafkaProtocolError))


def reason_of(error: BaseException) -> str:
    """Return why a connection failed, and what to do if anything; fits behind "HOST:PORT: "."""
    root = root_of(error)
    if isinstance(root, ssl.SSLError):
        return _tls_reason(root)
    if isinstance(root, errors.SaslAuthenticationFailedError):
        return f"the log-in was refused ({_text(root)})"
    if isinstance(root, errors.UnsupportedSaslMechanismError):
        return "this sasl_mechanism is not offered"
    if isinstance(root, errors.IllegalSaslStateError):
        return "no log-in (SASL) is wanted at this port: set security_protocol without SASL_, or take another port"
    if isinstance(root, errors.InvalidReceiveError) and _is_tls_alert(root):
        return "TLS is spoken at this port: set security_protocol to SSL or SASL_SSL, or take another port"
    if isinstance(root, SettingsError):
        return str(root)
    text = _text(root)
    if number := re.search(r"\b(\d+) E[A-Z]+$", text):
        return os.strerror(int(number[1]))
    if text == "socket disconnected":
        return "the connection was closed by the other side"
    return text if isinstance(root, errors.KafkaConnectionError) else f"{type(root).__name__}: {text}"


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message.rstrip('.')}): {_what_to_do(error.verify_code)}"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)):
        return "the connection was closed during the TLS handshake: the broker is not up, or this port speaks no TLS"
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return "no TLS is spoken at this port: take another port, or set security_protocol without SSL"
    if OF_OUR_CERTIFICATE.search(error.reason or ""):
        return f"our certificate was refused ({error.reason}): give one that it trusts as ssl_certfile and ssl_keyfile"
    return f"TLS failed ({error.reason or error})"


def _what_to_do(code: int) -> str:
    if code in (OTHER_HOSTNAME, OTHER_ADDRESS):
        return "use a name that it is made for in --log and in the broker's advertised.listeners"
    if code in (EXPIRED, NOT_YET_VALID):
        return "renew it on the broker, or set this machine's clock"
    if code == REVOKED:
        return "replace it on the broker"
    return "give the certificate of the authority that signed it as ssl_cafile"


def _is_tls_alert(error: errors.InvalidReceiveError) -> bool:
    length = re.search(r"\d+$", _text(error))
    return length is not None and int(length[0]) >> 24 == TLS_ALERT


def _text(error: BaseException) -> str:
    return " ".join(str(argument) for argument in error.args) or type(error).__name__
