"""What a failed connection means: who refused whom, why, and what to do."""

from __future__ import annotations

import os
import re
import ssl

from kafka import errors

from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.options import TOKEN
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


def reason_of(error: BaseException, config: KafkaConfig, was_in: bool = False) -> str:
    """Return why a connection failed, and what to do if anything; fits behind "HOST:PORT: ".

    ``was_in``: the connection had come about, and was closed in the first contact.
    """
    root = root_of(error)
    if isinstance(root, ssl.SSLError):
        return _tls_reason(root)
    if isinstance(root, errors.BrokerResponseError):
        return _log_in_reason(root, config)
    if isinstance(root, errors.InvalidReceiveError) and _is_tls_alert(root):
        return "TLS is spoken at this port: set security_protocol to SSL or SASL_SSL, or take another port"
    if isinstance(root, errors.KafkaConnectionError):
        return _connection_reason(root, was_in)
    if isinstance(root, (OSError, SettingsError)):
        return str(root)
    return f"{type(root).__name__}: {_text(root)}"


def _connection_reason(error: errors.KafkaConnectionError, was_in: bool) -> str:
    text = _text(error)
    if text == "socket disconnected":
        hint = "; if it wants a log-in, set security_protocol to SASL_SSL or SASL_PLAINTEXT" if was_in else ""
        return f"the connection was closed by the other side{hint}"
    if text == "DNS Resolution failure":
        return "there is no such host name"
    number = re.search(r"\b(\d+) E[A-Z]+$", text)
    return f"{os.strerror(int(number[1])) if number else text}: is the broker up, and the address right?"


def _log_in_reason(error: errors.BrokerResponseError, config: KafkaConfig) -> str:
    mechanism = config.options.get("sasl_mechanism")
    if isinstance(error, errors.SaslAuthenticationFailedError):
        said = _text(error).removeprefix("SaslAuthenticationFailedError: ")
        check = TOKEN if mechanism == "OAUTHBEARER" else "sasl_plain_username and sasl_plain_password"
        return f"{config.principal} was refused ({said}): check sasl_mechanism, {check} in --log-config"
    if isinstance(error, errors.UnsupportedSaslMechanismError):
        return f"sasl_mechanism {mechanism} is not offered at this port"
    if isinstance(error, errors.IllegalSaslStateError):
        return "no log-in is wanted at this port: set security_protocol without SASL_, or take another port"
    if isinstance(error, errors.RequestTimedOutError):
        return "no answer in time: is the broker up, and the address right?"
    return f"{type(error).__name__}: {_text(error)}"


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
