"""Asks a FHIR R4 server for the cases that come up: Appointment, ServiceRequest, Patient and ImagingStudy."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

import httpx

from fluoronav.pacs.database import Database
from fluoronav.pacs.fetches import FetchError, Fetches
from fluoronav.pacs.identities import PatientRecord
from fluoronav.pacs.peers import PeerUnreachable, Wanted
from fluoronav.pacs.schedule import AGAIN_S, Schedule, ScheduledCase, TwoPatients
from fluoronav.pacs.tls import TlsError
from fluoronav.pacs.web import check_status, told, web_client
from fluoronav.site.site_file import Fhir, SiteFile

log = logging.getLogger(__name__)
_SOURCE = "fhir"
_JSON = "application/fhir+json"
_MOST_PAGES = 20  # of one question; chosen: some thousand cases
_PAGE = "100"
_OID = "urn:oid:"
# Of AppointmentStatus and of RequestStatus: what is to happen, and what is not (R4 value sets of these names).
_ON: dict[str, tuple[str, ...]] = {
    "Appointment": ("pending", "booked", "arrived", "checked-in"),
    "ServiceRequest": ("active", "on-hold"),
}
_OFF = ("cancelled", "noshow", "entered-in-error", "revoked")
_SEXES = {"male": "M", "female": "F", "other": "O"}
Kind = Literal["Appointment", "ServiceRequest"]


class FhirPoll:
    """Takes the cases of a FHIR server into the schedule.

    Parameters
    ----------
    site : SiteFile
    settings : Fhir
    schedule : Schedule
    fetches : Fetches
    database : Database
    """

    def __init__(
        self, site: SiteFile, settings: Fhir, schedule: Schedule, fetches: Fetches, database: Database
    ) -> None:
        self._site, self._settings, self._schedule = site, settings, schedule
        self._fetches, self._database = fetches, database
        self._base = settings.url.rstrip("/") + "/"

    def poll(self) -> None:
        """Asks once."""
        patients: dict[str, Any] = {}
        try:
            with web_client(self._settings, self._settings.timeout_s, _JSON) as client:
                for kind, date, subject in (
                    ("Appointment", "date", "patient"),
                    ("ServiceRequest", "occurrence", "subject"),
                ):
                    for resource in self._cases(client, kind, date, subject, patients):
                        self._take(client, resource, patients)
        except (PeerUnreachable, TlsError) as error:
            log.warning("the FHIR server gives no answer: %s", error)
            self._database.count("FHIR server without an answer")
        self._schedule.prefetch()

    def _cases(
        self, client: httpx.Client, kind: str, date: str, subject: str, patients: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        now = datetime.now().astimezone()
        first = now - timedelta(hours=self._site.fetch.behind_h)
        last = now + timedelta(hours=self._site.fetch.ahead_h)
        times = [f"ge{first.isoformat(timespec='seconds')}", f"le{last.isoformat(timespec='seconds')}"]
        query = {date: times, "_include": f"{kind}:{subject}", "_count": _PAGE}
        cases = []
        for resource in self._found(client, kind, query):
            if resource.get("resourceType") == "Patient":
                patients[f"Patient/{resource.get('id')}"] = resource
            elif resource.get("resourceType") == kind:
                cases.append(resource)
        yield from cases

    def _take(self, client: httpx.Client, resource: dict[str, Any], patients: dict[str, Any]) -> None:
        kind, status = resource["resourceType"], resource.get("status")
        number = f"{kind}/{resource.get('id')}"
        if status in _OFF:
            self._schedule.cancel(number, _SOURCE)
            return
        if status not in _ON[kind]:
            return
        try:
            reference = _patient_reference(resource)
            if reference not in patients:
                patients[reference] = self._got(client, reference)
            patient = patient_record(patients[reference], self._settings.identifiers)
            self._schedule.take(ScheduledCase(number, patient, _starts(resource)), _SOURCE)
            self._fetch_studies(client, reference)
        except TwoPatients as error:
            log.warning("a scheduled case is refused: %s", error)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            # Ours say what is absent; those of a malformed resource may quote it.
            what = str(error) if type(error) is ValueError else "it is malformed"
            log.warning("a %s is left out: %s", kind, what)
            self._database.count(f"FHIR {kind} left out: {what}")

    def _fetch_studies(self, client: httpx.Client, patient: str) -> None:
        """The patient's newest CT studies, as far as the server lists them."""
        query = {"patient": patient, "modality": "CT", "_count": _PAGE}
        found = [r for r in self._found(client, "ImagingStudy", query) if r.get("resourceType") == "ImagingStudy"]
        newest = sorted(found, key=lambda r: str(r.get("started") or ""), reverse=True)[: self._site.fetch.studies]
        peer = self._site.fetch.peer or self._site.results_to
        for study in newest:
            uids = [str(i.get("value") or "") for i in study.get("identifier") or () if isinstance(i, dict)]
            uid = next((u.removeprefix(_OID) for u in uids if u.startswith(_OID)), "")
            try:
                self._fetches.add(Wanted("study", uid), peer, _SOURCE, again_s=AGAIN_S)
            except FetchError:
                self._database.count("FHIR ImagingStudy left out: it has no study UID")

    def _found(self, client: httpx.Client, kind: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The resources of all pages of an answer."""
        url, params = kind, query
        for _ in range(_MOST_PAGES):
            bundle = self._got(client, url, params)
            for entry in bundle.get("entry") or ():
                if isinstance(entry, dict) and isinstance(entry.get("resource"), dict):
                    yield entry["resource"]
            links = [k for k in bundle.get("link") or () if isinstance(k, dict) and k.get("relation") == "next"]
            if not links:
                return
            url, params = str(links[0].get("url")), {}
        self._database.count(f"FHIR: more than {_MOST_PAGES} pages of {kind}; the rest was left out")

    def _got(self, client: httpx.Client, path: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        url = urljoin(self._base, path)
        if urlsplit(url)[:2] != urlsplit(self._base)[:2]:
            # The token is for this server alone.
            raise PeerUnreachable(f"{self._base}: refers to another server, which is not asked")
        try:
            answer = client.get(url, params=query or None)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise PeerUnreachable(f"{self._base}: {told(error)}") from error
        check_status(self._settings, answer.status_code)
        try:
            content = answer.json() if answer.status_code == 200 else None
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise PeerUnreachable(f"{self._base}: was answered with {answer.status_code} and no FHIR resource")
        return content


def patient_record(resource: dict[str, Any], issuers: dict[str, str]) -> PatientRecord:
    """Who a Patient resource is.

    Parameters
    ----------
    resource : dict
    issuers : dict of str to str
        Issuers as images name them, by the system of an identifier; the first that is there counts. Empty: the first
        identifier that is in use, of the site's issuer.

    Raises
    ------
    ValueError
        What is absent; no value is named.
    """
    named = [i for i in resource.get("identifier") or () if i.get("value") and i.get("use") != "old"]
    if issuers:
        named = [i for system in issuers for i in named if i.get("system") == system]
    if not named:
        raise ValueError("its Patient has no identifier of a system in `fhir.identifiers`")
    names = resource.get("name") or [{}]
    name = next((n for n in names if n.get("use") == "official"), names[0])
    given = [str(g) for g in name.get("given") or ()]
    parts = [str(name.get("family") or ""), *given[:1], " ".join(given[1:])]
    return PatientRecord(
        str(named[0]["value"]),
        issuers.get(str(named[0].get("system")), ""),
        "^".join(parts).rstrip("^"),
        date if len(date := str(resource.get("birthDate") or "").replace("-", "")) == len("YYYYMMDD") else "",
        _SEXES.get(str(resource.get("gender")), ""),
    )


def _patient_reference(resource: dict[str, Any]) -> str:
    actors = [resource.get("subject") or {}] if resource["resourceType"] == "ServiceRequest" else []
    actors += [p.get("actor") or {} for p in resource.get("participant") or ()]
    references = [str(a.get("reference") or "") for a in actors]
    found = next((r for r in references if r.startswith("Patient/") or "/Patient/" in r), "")
    if not found:
        raise ValueError("it refers to no Patient")
    return "Patient/" + found.rpartition("Patient/")[2].partition("/")[0]


def _starts(resource: dict[str, Any]) -> datetime:
    text = (
        resource.get("start")
        or resource.get("occurrenceDateTime")
        or (resource.get("occurrencePeriod") or {}).get("start")
    )
    try:
        return datetime.fromisoformat(str(text)).astimezone()
    except ValueError as error:
        raise ValueError("its start is no date and time") from error
