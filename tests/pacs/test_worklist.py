"""A real worklist (dcmtk's wlmscpfs): its cases are scheduled, and their CT is fetched ahead of them."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from tests.pacs.conftest import NAME, PATIENT_ID, free_port, until
from tests.pacs.test_fetch import archived, nobody_named, with_pacs
from tests.pacs.test_hl7 import Site

from fluoronav.pacs.status import read_status
from fluoronav.pacs.worklist import WorklistPoll, scheduled_case
from fluoronav.site.site_file import Worklist


class WorklistServer:
    """`wlmscpfs` on a folder."""

    def __init__(self, folder):
        self.port = free_port()
        self.folder = folder / "WORKLIST"
        self.folder.mkdir(parents=True)
        (self.folder / "lockfile").touch()
        program = shutil.which("wlmscpfs")
        assert program, "apt-get install dcmtk"
        self.process = subprocess.Popen(
            [program, "-dfr", "-dfp", str(folder), str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def put(self, name, hours=20, patient_id=PATIENT_ID, born="19700203", **more):
        entry(hours, patient_id, born, **more).save_as(self.folder / f"{name}.wl", enforce_file_format=True)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)

    @property
    def dimse(self):
        return {"host": "127.0.0.1", "port": self.port, "called": "WORKLIST", "insecure": True}


def entry(hours, patient_id, born, **more):
    when = datetime.now() + timedelta(hours=hours)
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle, step.ScheduledProcedureStepID = "XA", "FLUORO_PLAN", "STEP1"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = f"{when:%Y%m%d}", f"{when:%H%M%S}"
    d = Dataset()
    d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = NAME, patient_id, born, "F"
    d.AccessionNumber, d.StudyInstanceUID, d.RequestedProcedureID = "OP-1", generate_uid(), "RP1"
    d.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in more.items():
        setattr(d, keyword, value)
    d.ScheduledProcedureStepSequence = [step]
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = (
        "1.2.276.0.7230010.3.1.0.1",
        generate_uid(),
    )
    return d


@pytest.fixture
def server(tmp_path):
    server = WorklistServer(tmp_path / "worklists")
    yield server
    server.stop()


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    yield site
    site.listener.stop()


def polled(site, server, **settings):
    """Polls until the server answers, which listens a moment after its start; what is scheduled."""
    poll = WorklistPoll(
        Worklist(dimse=server.dimse, timeout_s=5, **settings), site.site.fetch, site.schedule, site.database
    )

    def answered():
        before = "worklist without an answer" in site.refused
        with site.database.transaction() as sql:
            sql.execute("DELETE FROM tally WHERE what = 'worklist without an answer'")
        poll.poll()
        return not before and "worklist without an answer" not in site.refused

    until(answered, what="an answer")
    return site.scheduled


def test_a_scheduled_patients_ct_becomes_a_case_by_itself(make_node, orthanc, server):
    archived(orthanc)
    server.put("one")

    def change(content):
        with_pacs(orthanc, dicomweb=orthanc.web)(content)
        content["worklist"] = {"dimse": server.dimse, "every_s": 1}

    node = make_node(change)
    assert len(list((node.case() / "ct").iterdir())) > 20
    (scheduled,) = node.status["scheduled"]
    assert scheduled["patient"] == node.status["cases"][0]["case"] and scheduled["source"] == "worklist"
    until(lambda: node.status["fetches"][0]["state"] == "done", what="the fetch")
    nobody_named(node)


def test_what_the_worklist_names_is_scheduled_and_cancelled_when_it_is_gone(site, server):
    server.put("one", hours=20)
    server.put("far", hours=24 * 20, patient_id="far")
    server.put("other", hours=21, patient_id="other", AccessionNumber="OP-2")
    rows = polled(site, server)
    assert [r["state"] for r in rows] == ["scheduled"] * 2
    assert rows[0]["patient"] == site.pseudonyms.patient("SITE", PATIENT_ID)
    (server.folder / "other.wl").unlink()
    assert [r["state"] for r in polled(site, server)] == ["scheduled", "cancelled"]


def test_of_a_station_only_its_cases_are_taken(site, server):
    server.put("one")
    assert not polled(site, server, station="ELSEWHERE")
    assert len(polled(site, server, station="FLUORO_PLAN")) == 1


def test_two_patients_with_one_id_in_the_worklist_are_told_of(site, server):
    site.known(PATIENT_ID, born="19991231")
    server.put("one")
    assert [r["state"] for r in polled(site, server)] == ["refused"]
    assert "two patients have one ID" in read_status(site.site)["scheduled"][0]["reason"]
    assert site.fetches.due() is None


def test_a_worklist_that_is_down_cancels_nothing(site, server):
    server.put("one")
    polled(site, server)
    server.stop()
    poll = WorklistPoll(Worklist(dimse=server.dimse, timeout_s=1), site.site.fetch, site.schedule, site.database)
    poll.poll()
    assert [r["state"] for r in site.scheduled] == ["scheduled"]
    assert "worklist without an answer" in site.refused


def test_an_entry_says_what_it_lacks_and_its_time_zone_counts():
    case = scheduled_case(entry(1, "1", "", TimezoneOffsetFromUTC="+0200"))
    assert case.starts.tzinfo is UTC
    with pytest.raises(ValueError, match="no PatientID"):
        scheduled_case(entry(1, "", ""))
    with pytest.raises(ValueError, match="no scheduled step"):
        scheduled_case(Dataset())
    broken = entry(1, "1", "")
    broken.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate = ""
    with pytest.raises(ValueError, match="no date and time"):
        scheduled_case(broken)
