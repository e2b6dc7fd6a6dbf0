"""Requests over HTTP to what a site file names: DICOMweb and FHIR."""

from __future__ import annotations

import ssl

import httpx

from fluoronav.pacs.peers import PeerUnreachable
from fluoronav.pacs.tls import explained, web_context
from fluoronav.site.site_file import Web


def web_client(web: Web, timeout_s: float, accept: str) -> httpx.Client:
    """A client that speaks TLS as the site file says, with its token.

    Raises
    ------
    PeerUnreachable
        The token cannot be read.
    TlsError
    """
    # The environment neither names proxies nor other authorities than the site file.
    return httpx.Client(
        # Reading the system's authorities takes 20 ms, which http:// does not need.
        verify=web_context(web) if web.url.startswith("https://") else False,
        trust_env=False,
        timeout=timeout_s,
        follow_redirects=False,
        headers={"Accept": accept, **_authorization(web)},
    )


def check_status(web: Web, status: int) -> None:
    """Raises :class:`PeerUnreachable` for a status that says nothing of what was asked."""
    url = web.url.rstrip("/")
    if status in (401, 403):
        source = f"put a valid one into {web.token}" if web.token else "it wants a token (`token`)"
        raise PeerUnreachable(f"{url}: access was refused ({status}): {source}")
    if status >= 500 or 300 <= status < 400:
        raise PeerUnreachable(f"{url}: was answered with {status}")


def told(error: Exception) -> str:
    """Why a request failed, in words."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return explained(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    # httpx keeps the words of the handshake's error, not the error.
    return explained(ssl.SSLError(str(error))) if "ssl" in str(error).lower() else str(error) or type(error).__name__


def _authorization(web: Web) -> dict[str, str]:
    if web.token is None:
        return {}
    try:
        return {"Authorization": f"Bearer {web.token.read_text(encoding='utf-8').strip()}"}
    except (OSError, UnicodeDecodeError) as error:
        raise PeerUnreachable(f"{web.token}: the token cannot be read: {error}") from error
