"""A real stream, `pacs live`, the node and a real archive: results arrive, and what is down delays no frame."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import SimpleITK as sitk
import yaml

from fluoronav.lab.bench.display import DisplayProcess
from fluoronav.paths import embedded_case
from tests.case.scans import slices
from tests.live.conftest import SIZE, Pipeline
from tests.pacs.conftest import NAME, PATIENT_ID, Orthanc, RunningNode, ct_series, free_port, send, until

SPINE = embedded_case().parent
ACCEPTED_OBJECTS = 2  # the image and the report of the one acceptance
FRAMES_HEARD = 30  # overlays that must come while the archive is down: a second of the stream


def spine_series():
    """The embedded case's CT as a scanner sends it."""
    model = ct_series(count=1)[0]
    out = slices(sitk.ReadImage(str(SPINE / "ct.nrrd")))
    for k, d in enumerate(out):
        d.StudyInstanceUID, d.InstanceNumber = model.StudyInstanceUID, k + 1
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            setattr(d, keyword, model.get(keyword))
    return out


def planned(case):
    """What planning adds to a draft: the embedded case's structures, plan, tools and prior."""
    draft = yaml.safe_load((case / "case.yaml").read_text())
    content = yaml.safe_load(embedded_case().read_text())
    for name in ("labels", "surroundings"):
        shutil.copy(SPINE / content[name], case / content[name])
    (case / "case.yaml").write_text(yaml.safe_dump(content | {"name": draft["name"], "ct": "ct"}))


class Theatre:
    """All processes."""

    def __init__(self, folder):
        self.folder, self.orthanc = folder, Orthanc(folder / "orthanc")
        self.pipeline = self.live = self.carm = None
        self.log = (folder / "live.log").open("w+")

        def change(content):
            content["peers"]["pacs"] = {"dicomweb": self.orthanc.web, "timeout_s": 2}
            content["results_to"] = "pacs"

        self.node = RunningNode(folder / "site", change)

    def open(self):
        folder = self.folder
        self.orthanc.start()
        self.node.start()
        self.series = spine_series()
        assert set(send(self.node.port, self.series)) == {0}
        case = self.node.case()
        planned(case)
        self.pipeline = Pipeline(folder, case=str(case), recordings="recordings")
        self.pipeline.pub.close()
        self.pipeline.tools.close()
        content = yaml.safe_load(self.node.file.read_text())
        ends = self.pipeline.endpoints
        content["live"] = {"out": ends["out"], "frames": ends["frames"], "run": True}
        content["live"]["marks"] = f"tcp://127.0.0.1:{free_port()}"
        self.node.file.write_text(yaml.safe_dump(content))
        self.start_live()
        self.pipeline.ready().confirm()
        self.carm = subprocess.Popen(
            [sys.executable, "-m", "fluoronav", "simulate", "embedded", "--camera", str(folder / "camera.yaml"),
             "--fps", "15", "--quiet", "--frames-endpoint", ends["frames"], "--tools-endpoint", ends["tools"]]
        )  # fmt: skip
        return self

    def start_live(self):
        command = [sys.executable, "-m", "fluoronav", "pacs", "live", str(self.node.file)]
        self.live = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def close(self):
        for process in (self.carm, self.live):
            if process is not None:
                process.terminate()
                process.wait(20)
        if self.pipeline is not None:
            self.pipeline.close()
        self.node.stop()
        self.orthanc.stop()
        self.log.close()

    def results(self):
        """What a viewer finds by QIDO in the CT's study."""
        url = f"{self.orthanc.web['url']}/studies/{self.series[0].StudyInstanceUID}/instances"
        answer = httpx.get(url, params={"includefield": "00080060"}, trust_env=False)
        found = answer.json() if answer.status_code == 200 else []
        return sorted(i["00080060"]["Value"][0] for i in found)


@pytest.fixture(scope="module")
def theatre(tmp_path_factory):
    theatre = Theatre(tmp_path_factory.mktemp("theatre"))
    try:
        yield theatre.open()
    finally:
        theatre.close()


def overlays(theatre):
    return len(theatre.pipeline.messages("overlay"))


def test_structures_that_planning_adds_to_a_case_are_found_as_segmentation_and_report(theatre):
    until(lambda: theatre.results() == ["SEG", "SR"], what=theatre.node.log.read_text())
    (report,) = (t for t in theatre.orthanc.tags if t["Modality"] == "SR")
    (segmentation,) = (t for t in theatre.orthanc.tags if t["Modality"] == "SEG")
    assert [s["SegmentLabel"] for s in segmentation["SegmentSequence"]][-2:] == ["aorta", "spinal_cord"]
    assert (report["PatientID"], report["StudyInstanceUID"]) == (PATIENT_ID, theatre.series[0].StudyInstanceUID)
    instances = {d.SOPInstanceUID for d in theatre.series}
    assert segmentation["ReferencedSeriesSequence"][0]["ReferencedInstanceSequence"][0]["ReferencedSOPInstanceUID"] in (
        instances
    )


def test_an_accepted_registration_and_a_mark_are_found_in_the_ct_s_study_as_drafts(theatre):
    pipeline = theatre.pipeline
    pipeline.wait(lambda: [o for o in pipeline.messages("overlay") if o["registration"]], what="a pose")
    pipeline.wait(lambda: pipeline.request("registration.accept")["ok"], what="an acceptance")
    until(lambda: theatre.results() == ["OT", "PR", "SEG", "SR", "SR", "XA"], what=theatre.said())
    done = theatre.node.command("mark", theatre.node.file, "--note", "wire in place")
    assert done.returncode == 0 and "4 objects for pacs" in done.stdout, done.stderr + theatre.said()
    until(lambda: len(theatre.results()) == 10, what=theatre.said())
    tags = theatre.orthanc.tags
    assert {(t["PatientID"], t["PatientName"]) for t in tags} == {(PATIENT_ID, NAME)}
    assert {t["StudyInstanceUID"] for t in tags} == {theatre.series[0].StudyInstanceUID}
    assert all(t["SeriesDescription"].startswith("DRAFT") for t in tags)
    assert PATIENT_ID not in theatre.said() and NAME not in theatre.said()


def test_a_press_on_the_displays_mark_button_makes_objects_and_the_page_says_so(theatre, browser):
    had = len(theatre.results())
    launch = yaml.safe_load(theatre.pipeline.path.read_text())
    launch["endpoints"]["marks"] = yaml.safe_load(theatre.node.file.read_text())["live"]["marks"]
    file = theatre.folder / "display.yaml"
    file.write_text(yaml.safe_dump(launch))
    display = DisplayProcess(file)
    try:
        page = browser.new_page()
        page.goto(display.control)
        until(lambda: page.evaluate("fluoronav.stats.shownSeq !== null"))
        page.evaluate("fluoronav.user.take('Dr. Test')")
        page.click("#tool-mark")
        until(lambda: "PACS side" in page.inner_text("#age"))
        until(lambda: len(theatre.results()) == had + 4, what=theatre.said())
        page.close()
    finally:
        display.close()


def test_live_results_that_start_again_make_nothing_of_the_same_acceptance(theatre):
    had = len(theatre.results())
    theatre.live.kill()
    theatre.live.wait()
    theatre.start_live()
    done = theatre.node.command("mark", theatre.node.file, "--note", "after the restart")
    for _ in range(20):
        if done.returncode == 0:
            break
        done = theatre.node.command("mark", theatre.node.file, "--note", "after the restart")
    assert done.returncode == 0, done.stderr + theatre.said()
    until(lambda: len(theatre.results()) == had + 4, what=theatre.said())
    tags = theatre.orthanc.tags
    assert len([t for t in tags if t["SeriesDescription"] == "DRAFT Accepted registration"]) == ACCEPTED_OBJECTS


def test_while_the_archive_is_down_overlays_go_on_and_its_results_come_when_it_is_back(theatre):
    had = len(theatre.results())
    theatre.orthanc.stop()
    before = overlays(theatre)
    done = theatre.node.command("mark", theatre.node.file)
    assert done.returncode == 0, done.stderr + theatre.said()
    until(lambda: [o for o in theatre.node.status["outbox"] if o["state"] == "waiting" and o["attempts"]])
    until(lambda: overlays(theatre) > before + FRAMES_HEARD, what="overlays while the archive is down")
    theatre.orthanc.start()
    assert theatre.node.command("retry", theatre.node.file).returncode == 0
    until(lambda: len(theatre.results()) == had + 4, what=str(theatre.node.status["outbox"]))


def test_a_recorded_run_and_the_end_of_the_case_become_results(theatre):
    had = len(theatre.results())
    reply = theatre.pipeline.request("record.start")
    recording = Path(reply["result"]["path"])
    until(lambda: recording.exists() and recording.stat().st_size > FRAMES_HEARD * 2 * SIZE**2)
    assert theatre.pipeline.request("record.stop")["ok"]
    until(lambda: len(theatre.results()) == had + 1, what=theatre.said())
    assert max(int(t.get("NumberOfFrames") or 1) for t in theatre.orthanc.tags) >= FRAMES_HEARD
    theatre.live.terminate()
    assert theatre.live.wait(30) == 0, theatre.said()
    until(lambda: len(theatre.results()) == had + 2, what=theatre.said())
    assert [t for t in theatre.orthanc.tags if t["SeriesDescription"] == "DRAFT End of case"]
