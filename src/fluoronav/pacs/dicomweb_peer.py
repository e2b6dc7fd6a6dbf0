"""An archive by DICOMweb: STOW-RS, QIDO-RS and WADO-RS (PS3.18 chapters 10.4 to 10.6).

httpx rather than dicomweb-client: the body of a 409 says what became of each instance, and that library drops it.
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from fluoronav.pacs.dimse_peer import read_status
from fluoronav.pacs.peers import FoundSeries, FoundStudy, Landing, Outcome, Parcel, PeerUnreachable, Result, Wanted
from fluoronav.pacs.wado import ACCEPT, PartFiles, WadoError
from fluoronav.pacs.web import check_status, told, web_client
from fluoronav.site.site_file import Dicomweb

_CHUNK = 1 << 20
_JSON = "application/dicom+json"
# Attributes of a STOW response: PS3.18 table 10.5.3-1 and annex I.2.
_FAILED, _REFERENCED, _SOP, _REASON, _WARNING = "00081198", "00081199", "00081155", "00081197", "00081196"
_PATIENT_ID, _INSTANCES = "00100020", "00201209"
_STUDY, _SERIES, _MODALITY = "0020000D", "0020000E", "00080060"
_ISSUER, _BIRTH_DATE, _ACCESSION, _DATE, _TIME = "00100021", "00100030", "00080050", "00080020", "00080030"
_KEYS = {"patient": "PatientID", "accession": "AccessionNumber", "study": "StudyInstanceUID"}
_PAGE = 1000  # studies or series of one answer; chosen: no patient has more


class DicomwebPeer:
    """An archive by DICOMweb.

    Parameters
    ----------
    web : Dicomweb
    timeout_s : float
        For a connection, and for each part of an answer.
    """

    def __init__(self, web: Dicomweb, timeout_s: float) -> None:
        self._web, self._timeout_s = web, timeout_s
        self._url = web.url.rstrip("/")

    def store(self, parcels: Sequence[Parcel]) -> dict[str, Outcome]:
        """STOW-RS into the study of the instances."""
        boundary = secrets.token_hex(16)
        heads = [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()] * len(parcels)
        tail = f"--{boundary}--\r\n".encode()
        length = sum(len(h) + p.file.stat().st_size + 2 for h, p in zip(heads, parcels, strict=True)) + len(tail)
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(length),
        }
        body = _parts(heads, [p.file for p in parcels], tail)
        with web_client(self._web, self._timeout_s, _JSON) as client:
            answer = self._asked(client, "POST", f"/studies/{parcels[0].study}", content=body, headers=headers)
        return _outcomes(answer, parcels)

    def found(self, parcels: Sequence[Parcel]) -> set[str]:
        with web_client(self._web, self._timeout_s, _JSON) as client:
            return {p.sop for p in parcels if self._found(client, _instances(p), SOPInstanceUID=p.sop)}

    def patient_of(self, study: str) -> str | None:
        with web_client(self._web, self._timeout_s, _JSON) as client:
            found = self._found(client, "/studies", StudyInstanceUID=study, includefield=_PATIENT_ID)
        return None if not found else str(_value(found[0], _PATIENT_ID) or "")

    def count(self, study: str, series: str) -> int | None:
        query = {"SeriesInstanceUID": series, "includefield": _INSTANCES}
        with web_client(self._web, self._timeout_s, _JSON) as client:
            found = self._found(client, f"/studies/{study}/series", **query)
        number = _value(found[0], _INSTANCES) if found else None
        return None if number is None else int(number)

    def studies(self, wanted: Wanted) -> list[FoundStudy]:
        # The issuer is compared afterwards: an archive that keeps none would find nothing.
        fields = ",".join((_PATIENT_ID, _ISSUER, _BIRTH_DATE, _ACCESSION, _DATE, _TIME))
        query = {_KEYS[wanted.by]: wanted.value, "includefield": fields, "limit": str(_PAGE)}
        with web_client(self._web, self._timeout_s, _JSON) as client:
            found = self._found(client, "/studies", **query)
        return [
            FoundStudy(
                _text(f, _STUDY),
                _text(f, _PATIENT_ID),
                _text(f, _ISSUER),
                _text(f, _BIRTH_DATE),
                _text(f, _ACCESSION),
                _text(f, _DATE) + _text(f, _TIME),
            )
            for f in found
        ]

    def series_of(self, study: str) -> list[FoundSeries]:
        query = {"includefield": f"{_MODALITY},{_INSTANCES}", "limit": str(_PAGE)}
        with web_client(self._web, self._timeout_s, _JSON) as client:
            found = self._found(client, f"/studies/{study}/series", **query)
        return [
            FoundSeries(
                study, _text(f, _SERIES), _text(f, _MODALITY), None if (n := _value(f, _INSTANCES)) is None else int(n)
            )
            for f in found
        ]

    def retrieve(self, series: FoundSeries, landing: Landing) -> None:
        """WADO-RS: each instance goes to a file as it comes, in the transfer syntax that the archive has it in."""
        path = f"/studies/{series.study}/series/{series.series}"
        try:
            with (
                web_client(self._web, self._timeout_s, _JSON) as client,
                client.stream("GET", self._url + path, headers={"Accept": ACCEPT}) as answer,
            ):
                check_status(self._web, answer.status_code)
                if answer.status_code != 200:
                    raise PeerUnreachable(f"{self._url}: WADO-RS was answered with {answer.status_code}")
                with PartFiles(answer.headers.get("Content-Type", ""), landing) as parts:
                    for chunk in answer.iter_bytes(_CHUNK):
                        parts.write(chunk)
                    parts.end()
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise PeerUnreachable(f"{self._url}: {told(error)}") from error
        except WadoError as error:
            raise PeerUnreachable(f"{self._url}: WADO-RS: {error}") from error

    def _found(self, client: httpx.Client, path: str, **query: str) -> list[dict[str, Any]]:
        answer = self._asked(client, "GET", path, params=query)
        if answer.status_code in (204, 404):
            return []
        if answer.status_code != 200:
            raise PeerUnreachable(f"{self._url}: QIDO-RS was answered with {answer.status_code}")
        try:
            found = answer.json()
        except ValueError as error:
            raise PeerUnreachable(f"{self._url}: QIDO-RS was answered with something that is no JSON") from error
        return found if isinstance(found, list) else []

    def _asked(self, client: httpx.Client, method: str, path: str, **what: Any) -> httpx.Response:
        try:
            answer = client.request(method, self._url + path, **what)
        except (httpx.HTTPError, OSError) as error:
            raise PeerUnreachable(f"{self._url}: {told(error)}") from error
        check_status(self._web, answer.status_code)
        return answer


def _instances(parcel: Parcel) -> str:
    return f"/studies/{parcel.study}/series/{parcel.series}/instances"


def _parts(heads: list[bytes], files: list[Path], tail: bytes) -> Iterator[bytes]:
    for head, path in zip(heads, files, strict=True):
        yield head
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield b"\r\n"
    yield tail


def _outcomes(answer: httpx.Response, parcels: Sequence[Parcel]) -> dict[str, Outcome]:
    """What became of each instance: the body counts, since 200 and 409 come with some stored and some not."""
    code = answer.status_code
    try:
        body = answer.json() if answer.content else {}
        body = body[0] if isinstance(body, list) and body else body
    except ValueError:
        body = {}
    failed = {_value(i, _SOP): _value(i, _REASON) for i in _items(body, _FAILED)}
    stored = {_value(i, _SOP): _value(i, _WARNING) for i in _items(body, _REFERENCED)}
    out = {}
    for p in parcels:
        if p.sop in failed:
            reason = failed[p.sop]
            outcome = read_status(int(reason)) if reason is not None else Outcome(Result.REFUSED, "no reason given")
            # A status of success or warning among the failures is a contradiction: not stored, then.
            result = Result.REFUSED if outcome.result is Result.STORED else outcome.result
            said = "" if reason is None else f", FailureReason 0x{int(reason):04X}"
            out[p.sop] = Outcome(result, f"STOW-RS was answered with {code}{said}")
        elif code in (200, 202) or p.sop in stored:
            warning = stored.get(p.sop)
            out[p.sop] = Outcome(Result.STORED, "" if warning is None else f"WarningReason 0x{int(warning):04X}")
        else:
            hint = ": another study, or an instance that is there with other content" if code == 409 else ""
            out[p.sop] = Outcome(Result.REFUSED, f"STOW-RS was answered with {code}{hint}")
    return out


def _items(body: Any, tag: str) -> list[dict[str, Any]]:
    items = body.get(tag, {}).get("Value", []) if isinstance(body, dict) else []
    return [i for i in items if isinstance(i, dict)]


def _value(item: dict[str, Any], tag: str) -> Any:
    values = item.get(tag, {}).get("Value") or [None]
    return values[0]


def _text(item: dict[str, Any], tag: str) -> str:
    return str(_value(item, tag) or "").strip()
