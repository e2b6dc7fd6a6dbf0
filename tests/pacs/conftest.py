"""A node in a process of its own, series to send to it, and a real archive (Orthanc)."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from tests import warm
from tests.case.scans import patient, slices
from tests.ports import free_port

from fluoronav.pacs.requestor import on_open
from fluoronav.pacs.status import read_status
from fluoronav.site.init import init_site
from fluoronav.site.site_file import load_site

NAME, PATIENT_ID, ACCESSION = "Zimmerfrau^Zoe", "ZZ-471199", "ACC-8877"


@pytest.fixture(autouse=True, scope="session")
def senders_lose_no_answer():
    """Associations that tests open are opened as ours are; gives the library's own way of opening them."""
    plain = AE.associate

    def associate(self, *arguments, evt_handlers=(), **named):
        return plain(self, *arguments, evt_handlers=[(evt.EVT_CONN_OPEN, on_open), *(evt_handlers or ())], **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AE, "associate", associate)
        yield plain


def until(condition, seconds=120.0, what="it"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds} s")


def ct_series(study=None, count=None, **tags):
    """A CT of 26 slices as datasets, of a patient with a name."""
    out = slices(patient())[:count]
    study = study or generate_uid()
    for k, d in enumerate(out):
        d.StudyInstanceUID, d.PatientID, d.PatientName, d.InstanceNumber = study, PATIENT_ID, NAME, k + 1
        d.PatientBirthDate, d.PatientSex, d.StudyDate, d.StudyTime = "19700203", "F", "20260102", "101112"
        d.AccessionNumber, d.InstitutionName, d.ReferringPhysicianName = ACCESSION, "Klinikum Nord", "Doc^Tor"
        d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        d.add_new(0x00091010, "LO", "private " + NAME)
        for tag, value in tags.items():
            setattr(d, tag, value)
    return out


def send(port, datasets, called="FLUORO_PLAN", calling="STORESCU", release=True, tls=None):
    """C-STORE of datasets over one association; the statuses."""
    ae = AE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
    for pair in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}:
        ae.add_requested_context(*pair)
    association = ae.associate("127.0.0.1", port, ae_title=called, tls_args=tls)
    assert association.is_established
    statuses = [association.send_c_store(d).get("Status") for d in datasets]
    association.release() if release else association.abort()
    return statuses


class RunningNode:
    """`fluoronav pacs serve` as a process: forked warm, or started as a program where `cold`."""

    def __init__(self, folder, change=None, prepare=True, cold=False):
        self.cold = cold
        self.port = free_port()
        self.file = init_site(folder, port=self.port) if prepare else folder / "SITE.yaml"
        content = yaml.safe_load(self.file.read_text())
        content["series"] = {"settle_s": 0.3, "quiet_s": 3.0}
        content["node"]["least_free_mb"] = 1
        if change:
            change(content)
        self.file.write_text(yaml.safe_dump(content))
        self.log = folder / "log"
        self.process = None

    def start(self):
        arguments = ["pacs", "serve", str(self.file)]
        if self.cold:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen([sys.executable, "-m", "fluoronav", *arguments], stdout=log, stderr=log)
        else:
            self.process = warm.WarmCommand(arguments, self.log, self.log)
        until(self._listens, what="listening")
        return self

    def _listens(self):
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    @property
    def site(self):
        return load_site(self.file)

    @property
    def status(self):
        return read_status(self.site)

    def series(self, **wanted):
        """The series that the status tells of, once there are some with these values."""

        def found():
            return [s for s in self.status["series"] if all(s[k] == v for k, v in wanted.items())]

        return until(found, what=f"a series with {wanted}; {self.log.read_text()}")

    def case(self):
        """The folder of the only case, once it is there."""
        cases = until(lambda: self.status["cases"], what=f"a case; {self.log.read_text()}")
        return self.site.cases / cases[0]["case"]

    def command(self, *words):
        return warm.run(["pacs", *map(str, words)], 300)


@pytest.fixture
def make_node(tmp_path):
    nodes = []

    def made(change=None, name="site", start=True, cold=False):
        node = RunningNode(tmp_path / name, change, cold=cold)
        nodes.append(node)
        return node.start() if start else node

    yield made
    for node in nodes:
        node.stop()


@pytest.fixture
def node(make_node):
    return make_node()


class Orthanc:
    """A real archive, with DICOMweb."""

    def __init__(self, folder, options=None):
        self.http, self.dicom = free_port(), free_port()
        self.folder = folder
        folder.mkdir()
        plugins = Path("/usr/share/orthanc/plugins")
        config = {
            "Name": "test", "StorageDirectory": str(folder), "IndexDirectory": str(folder),
            "HttpPort": self.http, "DicomPort": self.dicom, "DicomAet": "ORTHANC", "MaximumPduLength": 131072,
            "RemoteAccessAllowed": True, "AuthenticationEnabled": False, "DicomCheckCalledAet": False,
            "DicomAlwaysAllowFind": True, "DicomAlwaysAllowStore": True, "OverwriteInstances": False,
            "Plugins": [str(plugins / "libOrthancDicomWeb.so")],
            "DicomModalities": {}, **(options or {}),
        }  # fmt: skip
        self.config = folder / "orthanc.json"
        self.config.write_text(json.dumps(config))
        self.process = None

    def start(self):
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [shutil.which("Orthanc"), str(self.config)], stdout=log, stderr=log, env={**os.environ, "TCP_NODELAY": "1"}
        )
        until(lambda: self._answers(), what="Orthanc")
        return self

    def _answers(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            answers = httpx.get(f"http://127.0.0.1:{self.http}/system", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False
        # Its DICOM server starts after its web server.
        with socket.socket() as s:
            return answers and s.connect_ex(("127.0.0.1", self.dicom)) == 0

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def get(self, path):
        return httpx.get(f"http://127.0.0.1:{self.http}{path}", trust_env=False).json()

    @property
    def tags(self):
        """The tags of all instances that it holds."""
        return [self.get(f"/instances/{i}/simplified-tags") for i in self.get("/instances")]

    @property
    def web(self):
        return {"url": f"http://127.0.0.1:{self.http}/dicom-web", "insecure": True}

    @property
    def dimse(self):
        return {"host": "127.0.0.1", "port": self.dicom, "called": "ORTHANC", "insecure": True}


@pytest.fixture
def orthanc(tmp_path):
    assert shutil.which("Orthanc"), "apt-get install orthanc orthanc-dicomweb"
    archive = Orthanc(tmp_path / "orthanc")
    yield archive.start()
    archive.stop()
