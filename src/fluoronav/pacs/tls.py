"""TLS 1.3 with certificates on both sides: DIMSE after PS3.15 B.12 (BCP 195), and DICOMweb."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from fluoronav.paths import regular_file
from fluoronav.site.site_file import Tls, Web


class TlsError(RuntimeError):
    """Certificates that cannot be used; the text names the file and what to do."""


def server_context(tls: Tls) -> ssl.SSLContext:
    """For who listens; whoever calls must show a certificate of one of the authorities.

    Raises
    ------
    TlsError
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _mutual(context, tls)


def client_context(tls: Tls) -> ssl.SSLContext:
    """For who calls; the server's certificate must be of one of the authorities and of the server's name."""
    return _mutual(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), tls)


def web_context(web: Web) -> ssl.SSLContext:
    """For HTTPS: the authorities of the site file or of this system, and our certificate where one is named."""
    context = ssl.create_default_context()
    if web.ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _trust(context, web.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # archives' web servers; DIMSE is 1.3
    if web.certificate is not None and web.key is not None:
        _present(context, web.certificate, web.key)
    return context


def explained(error: ssl.SSLError) -> str:
    """A handshake that failed, in words."""
    text = str(error).lower()
    reasons = (
        ("has expired", "the other side's certificate has expired; it must be renewed there"),
        ("certificate expired", "our certificate has expired, says the other side; renew it (`tls.certificate`)"),
        ("not yet valid", "the other side's certificate is not valid yet: is a clock wrong?"),
        ("hostname mismatch", "the other side's certificate is of another host name"),
        ("ip address mismatch", "the other side's certificate is of another address"),
        ("unable to get local issuer", "the other side's certificate is of an authority that `ca` does not hold"),
        ("self-signed", "the other side's certificate is of an authority that `ca` does not hold"),
        ("self signed", "the other side's certificate is of an authority that `ca` does not hold"),
        ("unknown ca", "the other side does not know the authority of our certificate"),
        ("certificate required", "the other side wants a certificate from us (`tls.certificate`)"),
        ("did not return a certificate", "the caller showed no certificate"),
        ("wrong version number", "the other side does not speak TLS"),
        ("http request", "the caller does not speak TLS"),
        ("protocol version", "the other side does not speak TLS 1.3"),
        ("unsupported protocol", "the other side does not speak TLS 1.3"),
    )
    return next((words for sign, words in reasons if sign in text), f"TLS failed: {error}")


def _mutual(context: ssl.SSLContext, tls: Tls) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    _trust(context, tls.ca)
    _present(context, tls.certificate, tls.key)
    return context


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(regular_file(ca))
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"{ca}: cannot be read as certificates of authorities (PEM): {error}") from error


def _present(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    _check_date(certificate)
    try:
        context.load_cert_chain(certificate, regular_file(key))
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"{certificate}, {key}: cannot be used as certificate and key (PEM): {error}") from error


def _check_date(path: Path) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(regular_file(path).read_bytes())
    except (OSError, ValueError) as error:
        raise TlsError(f"{path}: cannot be read as a certificate (PEM): {error}") from error
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise TlsError(f"{path}: this certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}: renew it")
    if now < certificate.not_valid_before_utc:
        raise TlsError(
            f"{path}: this certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on: "
            "is this computer's clock right?"
        )
