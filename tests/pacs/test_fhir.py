"""The FHIR poll against a stand-in: an aiohttp server with resources of the shape that R4 servers give."""

import asyncio
import threading
from datetime import datetime, timedelta

import pytest
from aiohttp import web
from tests.pacs.conftest import free_port
from tests.pacs.test_hl7 import BORN, ID, NAME, Site

from fluoronav.pacs.fhir import FhirPoll, patient_record
from fluoronav.pacs.status import read_status, told
from fluoronav.site.site_file import Fhir

MRN = "urn:oid:1.2.276.0.76.4711"


def in_hours(hours):
    return (datetime.now().astimezone() + timedelta(hours=hours)).isoformat(timespec="seconds")


def patient(**more):
    return {
        "resourceType": "Patient",
        "id": "p1",
        "identifier": [
            {"use": "old", "system": MRN, "value": "OLD"},
            {"system": "http://insurance.example", "value": "INS-1"},
            {"use": "usual", "system": MRN, "value": ID, "type": {"coding": [{"code": "MR"}]}},
        ],
        "name": [
            {"use": "nickname", "given": ["Hanni"]},
            {"use": "official", "family": "Hlsieben", "given": ["Hanna"]},
        ],
        "gender": "female",
        "birthDate": "1961-04-12",
        **more,
    }


def appointment(number="a1", status="booked", **more):
    actors = [{"actor": {"reference": "Practitioner/d"}}, {"actor": {"reference": "Patient/p1"}}]
    return {
        "resourceType": "Appointment",
        "id": number,
        "status": status,
        "start": in_hours(5),
        "participant": actors,
        **more,
    }


def request(number="s1", status="active", **more):
    subject = {"reference": "Patient/p1"}
    return {
        "resourceType": "ServiceRequest",
        "id": number,
        "status": status,
        "intent": "order",
        "subject": subject,
        "occurrenceDateTime": in_hours(9),
        **more,
    }


def study(uid, started):
    return {
        "resourceType": "ImagingStudy",
        "id": uid[-1],
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}],
        "started": started,
    }


class Server:
    """Answers searches with what it is given, one resource a page; the Patient is included, or read."""

    def __init__(self):
        self.resources, self.asked, self.status, self.next_host = [], [], 200, None
        self.include = True
        self.port = free_port()
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self._run, args=(started,), daemon=True).start()
        assert started.wait(10)

    def _run(self, started):
        asyncio.set_event_loop(self.loop)
        app = web.Application()
        app.router.add_get("/r4/Patient/p1", self._read)
        app.router.add_get("/r4/{kind}", self._search)
        runner = web.AppRunner(app)
        self.loop.run_until_complete(runner.setup())
        self.loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
        started.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)

    async def _read(self, request):
        return web.json_response(self.resource("Patient")[0], content_type="application/fhir+json")

    def resource(self, kind):
        return [r for r in self.resources if r["resourceType"] == kind]

    async def _search(self, request):
        kind, page = request.match_info["kind"], int(request.query.get("page", 0))
        self.asked.append((kind, dict(request.query), request.headers.get("Authorization")))
        found = self.resource(kind)
        entries = [{"resource": r} for r in found[page : page + 1]]
        if self.include and kind in ("Appointment", "ServiceRequest"):
            entries += [{"resource": r, "search": {"mode": "include"}} for r in self.resource("Patient")]
        bundle = {"resourceType": "Bundle", "type": "searchset", "total": len(found), "entry": entries}
        if page + 1 < len(found):
            host = self.next_host or f"http://127.0.0.1:{self.port}"
            bundle["link"] = [{"relation": "next", "url": f"{host}/r4/{kind}?page={page + 1}"}]
        return web.json_response(bundle, status=self.status, content_type="application/fhir+json")


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    yield site
    site.listener.stop()


def polled(site, server, **more):
    settings = Fhir(
        url=f"http://127.0.0.1:{server.port}/r4", insecure=True, identifiers={MRN: "SITE"}, timeout_s=5, **more
    )
    FhirPoll(site.site, settings, site.schedule, site.fetches, site.database).poll()
    return [r["state"] for r in site.scheduled]


@pytest.mark.parametrize("include", [True, False])
def test_appointments_and_requests_are_scheduled_and_their_ct_is_fetched(site, server, include):
    server.include = include
    server.resources = [patient(), appointment(), appointment("a2"), request(), study("1.2.3", "2026-01-01")]
    assert polled(site, server) == ["scheduled"] * 3
    assert {r["patient"] for r in site.scheduled} == {site.pseudonyms.patient("SITE", ID)}
    assert len(site.database.rows("SELECT * FROM fetches")) == 2
    wanted = set()
    while (due := site.fetches.due()) is not None:
        wanted.add((due[1].by, due[1].value))
        site.fetches.end(due[0], "done")
    assert wanted == {("patient", ID), ("study", "1.2.3")}
    text = told(read_status(site.site))
    assert ID not in text and "Hlsieben" not in text and "(fhir)" in text
    assert any(k == "Appointment" and q["_include"] == "Appointment:patient" for k, q, _ in server.asked)


def test_what_is_cancelled_is_cancelled_and_what_is_done_is_left(site, server):
    server.resources = [patient(), appointment(), request()]
    polled(site, server)
    server.resources = [patient(), appointment(status="cancelled"), request(status="completed"), request("s2", "draft")]
    assert sorted(polled(site, server)) == ["cancelled", "scheduled"]


def test_only_the_newest_studies_are_fetched(site, server):
    studies = [study(f"1.2.{n}", f"202{n}-01-01") for n in (1, 4, 3)]
    server.resources = [patient(), appointment(), *studies]
    polled(site, server)
    assert len(site.database.rows("SELECT * FROM fetches")) == 3  # the patient, and the two newest


def test_two_patients_with_one_id_are_refused(site, server):
    site.known(born="19991231")
    server.resources = [patient(), appointment()]
    assert polled(site, server) == ["refused"]
    assert site.database.rows("SELECT * FROM fetches WHERE source = 'fhir'") == []


@pytest.mark.parametrize(
    ("resources", "counted"),
    [
        ([patient(identifier=[{"system": "x", "value": "1"}]), appointment()], "no identifier of a system"),
        ([patient(), appointment(start="soon")], "no date and time"),
        ([patient(), appointment(participant=[])], "refers to no Patient"),
        ([patient(name="Hlsieben"), appointment()], "it is malformed"),
        ([patient(), appointment(), {"resourceType": "ImagingStudy", "id": "x"}], "no study UID"),
    ],
)
def test_what_cannot_be_used_is_counted_and_the_rest_goes_on(site, server, resources, counted):
    server.resources = [*resources]
    polled(site, server)
    assert counted in site.refused and "Hlsieben" not in site.refused


def test_a_server_that_is_down_refuses_or_speaks_otherwise_is_told_of(site, server, caplog, tmp_path):
    server.resources = [patient(), appointment()]
    polled(site, server)
    for status, said in ((401, "it wants a token"), (503, "answered with 503"), (404, "404 and no FHIR resource")):
        server.status = status
        assert polled(site, server) == ["scheduled"]
        assert said in caplog.text
    assert "FHIR server without an answer" in site.refused


def test_the_token_is_sent_and_goes_to_no_other_server(site, server, caplog, tmp_path):
    (tmp_path / "token").write_text("secret-1\n")
    server.resources = [patient(), appointment(), appointment("a2")]
    server.next_host = "http://127.0.0.2:9"
    polled(site, server, token=tmp_path / "token")
    assert server.asked[0][2] == "Bearer secret-1"
    assert "another server" in caplog.text


def test_a_patient_resource_is_the_patient_of_the_images():
    record = patient_record(patient(), {MRN: "SITE"})
    assert (record.patient_id, record.issuer, record.name) == (ID, "SITE", NAME)
    assert (record.birth_date, record.sex) == (BORN, "F")
    assert patient_record(patient(birthDate="1961"), {}).birth_date == ""
