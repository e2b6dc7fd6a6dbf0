"""The processes of the bench: a real archive (Orthanc) and our node."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import yaml

from fluoronav.lab.process import end_process
from fluoronav.pacs.status import read_status
from fluoronav.site.init import init_site
from fluoronav.site.site_file import SiteFile, load_site

T = TypeVar("T")
ARCHIVE = "orthanc"  # its name in the site file
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_PDU_BYTES = 131072  # as the node's
_WAIT_S = 120.0  # for anything that a node or an archive does; chosen: far more than it takes
_LOOK_S = 0.05  # between two questions: QIDO-RS takes the archive time, too
_SAMPLE_S = 0.05  # between looks at memory
_LEAST_FREE_MB = 64  # a bench may run on a small disk


class PacsBenchError(RuntimeError):
    """The bench cannot run; the text says why, and what to do."""


def check_installed() -> None:
    """Raises :class:`PacsBenchError` where the archive is not installed."""
    if shutil.which("Orthanc") is None or not _PLUGIN.is_file():
        raise PacsBenchError(
            "bench pacs needs the archive Orthanc with its DICOMweb plug-in, which is not installed: "
            "apt-get install orthanc orthanc-dicomweb"
        )


def free_port() -> int:
    """A TCP port of this computer that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(condition: Callable[[], T], what: str, log: Path | None = None, seconds: float = _WAIT_S) -> T:
    """The first true value of a condition.

    Raises
    ------
    PacsBenchError
        It stays false for so long; the end of the log is quoted.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(_LOOK_S)
    said = f"; it said: {log.read_text(errors='replace')[-500:]}" if log is not None and log.exists() else ""
    raise PacsBenchError(f"{what}: not within {seconds:.0f} s{said}")


class Orthanc:
    """A real archive with DICOMweb, on this computer alone.

    An instance that comes twice is stored twice, and the list of changes says so.

    Parameters
    ----------
    folder : Path
        Made; holds what is stored.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.http, self._log = free_port(), folder / "log"
        config = {
            "Name": "bench", "StorageDirectory": str(folder), "IndexDirectory": str(folder), "HttpPort": self.http,
            "DicomPort": free_port(), "DicomAet": "ORTHANC", "MaximumPduLength": _PDU_BYTES,
            "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "OverwriteInstances": True,
            "Plugins": [str(_PLUGIN)],
        }  # fmt: skip
        self._config = folder / "orthanc.json"
        self._config.write_text(json.dumps(config))
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.http}", trust_env=False, timeout=10)
        self._process = self._started()

    def _started(self) -> subprocess.Popen:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(self._config)], stdout=log, stderr=log, env={**os.environ, "TCP_NODELAY": "1"}
            )
        until(self._answers, "Orthanc answers", self._log)
        return self._process

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise PacsBenchError(f"Orthanc has ended: {self._log.read_text(errors='replace')[-500:]}")
        try:
            return self._client.get("/system").status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def url(self) -> str:
        """Root of its DICOMweb service."""
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def modalities(self, study: str) -> set[str]:
        """Modalities of the series of a study that QIDO-RS finds."""
        answer = self._client.get(f"/dicom-web/studies/{study}/series", headers={"Accept": "application/dicom+json"})
        found = answer.json() if answer.status_code == 200 else []
        return {value for series in found for value in series.get("00080060", {}).get("Value", [])}

    def stored(self, study: str) -> list[str]:
        """SOPInstanceUIDs of a study, one for each time that an instance was stored, kept or not."""
        changes, since = [], 0
        while True:
            page = self._client.get("/changes", params={"since": since, "limit": 1000}).json()
            changes += [c["ID"] for c in page["Changes"] if c["ChangeType"] == "NewInstance"]
            since = page["Last"]
            if page["Done"]:
                break
        times = {name: changes.count(name) for name in changes}
        found = self._client.post("/tools/find", json={"Level": "Instance", "Query": {"StudyInstanceUID": study}})
        return [name for name in found.json() for _ in range(times.get(name, 0))]

    def pause(self) -> None:
        """Ends the process; what it has stored stays."""
        end_process(self._process, 20)

    def resume(self) -> None:
        """Starts it again, on the same port; returns when it answers."""
        self._process = self._started()

    def stop(self) -> None:
        self._client.close()
        end_process(self._process, 20)


class BenchNode:
    """`fluoronav pacs serve` as a process, whose results go to an archive.

    Parameters
    ----------
    folder : Path
        Of the site; made.
    archive_url : str
        Root of the archive's DICOMweb service.
    """

    def __init__(self, folder: Path, archive_url: str) -> None:
        self.port = free_port()
        self._file = init_site(folder, "BENCH", self.port)
        content = yaml.safe_load(self._file.read_text())
        content["peers"][ARCHIVE] = {"dicomweb": {"url": archive_url, "insecure": True}}
        content["results_to"], content["node"]["least_free_mb"] = ARCHIVE, _LEAST_FREE_MB
        self._file.write_text(yaml.safe_dump(content))
        self.site: SiteFile = load_site(self._file)
        self._log = folder / "log"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Returns when it listens."""
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "fluoronav", "pacs", "serve", str(self._file)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self.listens, "the node listens", self._log)

    def listens(self) -> bool:
        process = self.process
        if process is None:
            return False  # killed, and not started again yet
        if process.poll() is not None:
            raise PacsBenchError(f"the node has ended: {self._log.read_text(errors='replace')[-500:]}")
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """SIGKILL."""
        process, self.process = self.process, None
        assert process is not None
        process.kill()
        process.wait()

    def stop(self) -> None:
        if self.process is not None:
            end_process(self.process, 20)

    @property
    def status(self) -> dict[str, Any]:
        return read_status(self.site)

    def cases(self) -> list[Path]:
        """Folders of the cases, the newest first."""
        return [self.site.cases / case["case"] for case in self.status["cases"]]

    def next_case(self, known: int) -> Path:
        """The newest case, once there are more than are known."""
        cases = until(lambda: found if len(found := self.cases()) > known else [], "a case is made", self._log)
        return cases[0]


class Memory:
    """The most memory (RSS) that a process and its children hold while this is open, MB."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.node_mb = self.worker_mb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            try:
                children = self._process.children(recursive=True)
                self.node_mb = max(self.node_mb, _rss_mb(self._process))
                self.worker_mb = max(self.worker_mb, sum(map(_rss_mb, children)))
            except psutil.NoSuchProcess:
                return


def _rss_mb(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        return 0.0
