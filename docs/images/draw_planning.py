"""Draws docs/images/planning-*: the walk of docs/planning.md, from the chest's DICOM series to the stream.

    python docs/images/draw_planning.py DATA WORK [--without-stream]

`DATA` is the folder of real data, of which `chest/ct.nii.gz` and `planning/patient_b/ct.nii.gz` are read. It holds the
chest as NIfTI alone, so the series is written from it first, without any name. `WORK` is a folder for the cases. Files
that it already holds are kept. The picture of the stream needs minutes of rendering; `--without-stream` leaves it out.
Needs the extras `dev` and `planning`, Chromium, and pdftoppm (poppler-utils).
"""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image
from playwright.sync_api import Error, sync_playwright
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from fluoronav.lab.bench.chromium import FLAGS, find_chromium

HERE = Path(__file__).parent
LEVELS = ("T7", "T8")
WIDTH = 1100  # of a picture, px
_AIR_HU = -1024


def write_series(nifti: Path, folder: Path) -> None:
    """Writes a CT as a DICOM series, HFS, without identifiers."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(nifti)), "LPS")
    voxels = np.clip(sitk.GetArrayFromImage(image), _AIR_HU, 32767).round().astype("<i2")
    study, series, frame = (
        generate_uid(entropy_srcs=["fluoronav chest", name]) for name in ("study", "series", "frame")
    )
    folder.mkdir(parents=True)
    for k, plane in enumerate(voxels):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["fluoronav chest", str(k)])
        ds = Dataset()
        ds.file_meta = meta
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "CHEST", "CHEST", "", ""
        ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.StudyID = ds.ReferringPhysicianName = ""
        ds.Modality, ds.PatientPosition, ds.Manufacturer, ds.PositionReferenceIndicator = "CT", "HFS", "", ""
        ds.ImageType, ds.SeriesNumber, ds.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], 1, k + 1
        ds.ImagePositionPatient = [f"{v:.6g}" for v in image.TransformIndexToPhysicalPoint((0, 0, k))]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing = [image.GetSpacing()[1], image.GetSpacing()[0]]
        ds.SliceThickness = image.GetSpacing()[2]
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *plane.shape, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "HU"
        ds.PixelData = plane.tobytes()
        ds.save_as(folder / f"ct{k:03d}.dcm", enforce_file_format=True)


def run(*arguments: str) -> None:
    """Runs a verb of fluoronav."""
    print("fluoronav", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "fluoronav", *arguments], check=True)


class Walk:
    """The page, and the pictures of each step."""

    def __init__(self, page, address: str) -> None:
        self.page, self.number = page, 0
        page.set_default_timeout(60_000)
        page.goto(address)
        page.wait_for_selector("[data-case]")

    def shot(self, name: str) -> None:
        """Writes a picture."""
        self.page.wait_for_timeout(1500)
        path = HERE / f"planning-{name}.jpg"
        png = path.with_suffix(".png")
        self.page.screenshot(path=str(png))
        picture = Image.open(png).convert("RGB")
        picture.resize((WIDTH, WIDTH * picture.height // picture.width), Image.Resampling.LANCZOS).save(
            path, quality=72
        )
        png.unlink()
        print(f"written: {path}", flush=True)

    def js(self, text: str, argument=None):
        return self.page.evaluate(text, argument)

    def answer(self, *buttons: str) -> None:
        for text in buttons:
            self.page.click(f"dialog button:has-text('{text}')")

    def tab(self, name: str) -> None:
        self.page.click(f"[data-tab={name}]")

    def close_message(self) -> None:
        if self.page.is_visible("#message button"):
            self.page.click("#message button")

    def job(self, kind: str, button: str, *answers: str) -> None:
        """Starts work in the background, and waits for its end."""
        self.tab("Work")
        before = self.js("fluoronavWorkspace.view.jobs.all.length")
        self.page.click(f"[data-page=Work] .buttons button:has-text('{button}')")
        self.answer(*answers)
        while True:
            self.page.wait_for_timeout(500)
            jobs = self.js("fluoronavWorkspace.view.jobs.all.map((j) => [j.kind, j.state, j.error])")
            if len(jobs) > before and jobs[-1][1] != "running":
                break
        print(kind, jobs[-1], flush=True)
        self.page.wait_for_timeout(1500)


def structures(walk: Walk) -> None:
    """Review: the brush, saving, comparing, approving."""
    walk.page.click("[data-window=Bone]")
    walk.page.click("[data-structure] b >> text=/^Vertebra T8$/")
    walk.js("fluoronavWorkspace.view.surfacesShown")
    walk.shot("2-structures")
    walk.page.keyboard.press("2")
    box = walk.page.locator("[data-view=axial] .cornerstone").bounding_box()
    x, y = walk.js("(({ cuts, scene }) => cuts.cuts[0].viewport.worldToCanvas(scene.cross))(fluoronavWorkspace.view)")
    walk.page.mouse.move(box["x"] + x - 12, box["y"] + y - 26)
    walk.page.mouse.down()
    walk.page.mouse.move(box["x"] + x + 14, box["y"] + y - 28, steps=10)
    walk.page.mouse.up()
    walk.js("fluoronavWorkspace.view.session.waiting")
    walk.shot("3-brush")
    walk.page.keyboard.press("1")
    walk.page.click("#save")
    walk.page.wait_for_selector("#message:has-text('Saved')")
    walk.tab("Compare")
    walk.page.click("text=Show the difference")
    walk.page.wait_for_selector("[data-page=Compare] .item")
    walk.shot("4-compare")
    walk.page.click("[data-page=Compare] button:has-text('Clear')")
    walk.tab("Structures")
    approve(walk)
    walk.shot("5-approved")


def approve(walk: Walk) -> None:
    """Approves the vertebrae, and what alarms use."""
    used = "s.kind === 'vertebra' || s.alarms || s.name === 'spinal_cord'"
    wanted = f"fluoronavWorkspace.view.structures.all.filter((s) => {used}).map((s) => s.label)"
    for label in walk.js(wanted):
        walk.js("(l) => fluoronavWorkspace.view.structures.ticked.add(l)", label)
    walk.js("fluoronavWorkspace.view.tell()")
    walk.page.wait_for_selector(".judging .good:not(:disabled)")
    walk.page.click(".judging .good")
    walk.page.wait_for_selector(".chip.approved")


def plan(walk: Walk) -> None:
    """Measurements, screws, views, questions, approval."""
    walk.job("measure", "Measure")
    walk.tab("Work")
    walk.page.click("[data-page=Work] .buttons button:has-text('Propose screws')")
    for level in LEVELS:
        walk.page.check(f"dialog input[value={level}]")
    walk.answer("Propose")
    walk.page.wait_for_selector(".job-done h2:has-text('Screws'), .job-failed h2:has-text('Screws')")
    walk.page.wait_for_timeout(2000)
    walk.tab("Plan")
    walk.close_message()
    walk.page.click("[data-screw] >> nth=2")
    walk.js("fluoronavWorkspace.view.surfacesShown")
    walk.page.click("[data-view=space] button:has-text('P')")
    walk.shot("6-screws")
    walk.job("check", "Check the plan")
    walk.close_message()
    walk.shot("7-work")
    walk.tab("Plan")
    for side in ("left", "right"):  # the check calls these unsafe
        walk.page.click(f"[data-screw=T7-{side}]")
        walk.page.click(f"[data-screw=T7-{side}] button[title='Remove this from the plan']")
        walk.page.wait_for_selector(f"[data-screw=T7-{side}]", state="detached")
    walk.page.click("[data-screw=T8-left]")
    walk.job("views", "Views for guidance")
    walk.close_message()
    walk.tab("Questions")
    walk.shot("8-questions")
    flags = walk.js("fluoronavWorkspace.view.plan.open().map((f) => f.id)")
    if flags:
        walk.js("(ids) => fluoronavWorkspace.view.plan.acknowledge(ids)", flags)
        walk.page.wait_for_selector("text=No question is open")
    walk.tab("Plan")
    walk.page.click("#review-plan")
    walk.page.click("#approve-plan:not(:disabled)")
    walk.page.wait_for_selector("#case-state:has-text('approved')")
    walk.shot("9-plan")
    walk.close_message()


def level(walk: Walk) -> None:
    """The question of the level: its evidence, its place, and the names of the vertebrae."""
    walk.page.click("[data-case=abdomen]")
    walk.page.wait_for_selector("body[data-ready=abdomen]")
    walk.page.click("[data-window=Bone]")
    walk.tab("Questions")
    walk.page.click("[data-question=level] >> text=Show the place")
    walk.page.click("[data-question=level] >> text=Name the vertebrae")
    walk.js("fluoronavWorkspace.view.surfacesShown")
    walk.shot("8-level")


def surgery(walk: Walk) -> None:
    """A wedge of L1 that is closed: its pieces at their moved place, and where they lay."""
    walk.tab("Structures")
    walk.page.click("[data-structure] b >> text=/^Vertebra L1$/")
    x, y, z = walk.js("fluoronavWorkspace.view.scene.cross")
    apex, half = np.array([x, y - 34.0, z]), np.deg2rad(6)
    low, high = ([0.0, sign * float(np.sin(half)), float(np.cos(half))] for sign in (1, -1))
    turn = np.eye(4)  # the upper plane onto the lower
    turn[1:3, 1:3] = [[np.cos(2 * half), np.sin(2 * half)], [-np.sin(2 * half), np.cos(2 * half)]]
    turn[:3, 3] = apex - turn[:3, :3] @ apex
    about = {"kind": "cut", "origin": "drawn", "structure": "vertebrae_L1", "kerf_mm": 1.0, "point_ct": apex.tolist()}
    put = [
        {**about, "id": "wedge1", "normal_ct": low, "wedge_to": "wedge1_end"},
        {**about, "id": "wedge1_end", "normal_ct": high},
        {"kind": "move", "id": "move1", "origin": "drawn", "cut": "wedge1_end", "T_moved_ct": turn.tolist()},
    ]
    walk.js("(put) => fluoronavWorkspace.view.plan.change({ put })", put)
    walk.tab("Plan")
    walk.page.wait_for_selector("#surgery .chip.approved")
    walk.js("fluoronavWorkspace.view.plan.show('wedge1_end')")
    others = "fluoronavWorkspace.view.structures.all.filter((s) => s.kind !== 'vertebra').map((s) => s.label)"
    walk.js(f"fluoronavWorkspace.view.structures.toggle({others}, false)")
    walk.js("fluoronavWorkspace.view.surfacesShown")
    walk.js("fluoronavWorkspace.view.cuts.cuts.forEach((cut) => cut.viewport.setZoom(3))")
    walk.js("(at) => fluoronavWorkspace.view.goTo(at)", [x, y, z])
    walk.js("(({ scene }) => (scene.layers.structures = false))(fluoronavWorkspace.view)")
    walk.js("fluoronavWorkspace.view.repaint()")
    walk.page.click("[data-view=space] button:has-text('L')")
    walk.js("(at) => fluoronavWorkspace.view.space.near(at)", [x, y, z])
    walk.page.click("[data-view=space] button:has-text('L')")
    walk.shot("6-cut")


def guide(case: Path, work: Path, browser) -> None:
    """`fluoronav demo` on the exported case, with the navigation display in the browser."""
    exported = work / "or"
    if not exported.is_dir():
        run("plan", "export", str(case), "--to", "case", "--out", str(exported))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["demo", "--case", str(exported), "--seconds", "40", "--out", str(work / "guided"), "--port", str(port)]
    demo = subprocess.Popen([sys.executable, "-m", "fluoronav", *command])
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    while demo.poll() is None:
        try:
            page.goto(f"http://127.0.0.1:{port}/")
            break
        except Error:
            page.wait_for_timeout(500)
    shown = "fluoronav.state.overlays.get(fluoronav.stats.overlaySeq)?.overlay"
    # The tip is in the bone, on its way along the screw.
    inside = "o?.status === 'tracking' && o.plan[0]?.depth_left_mm < 12 && o.outlines.length"
    page.wait_for_function(f"(o => {inside})({shown})", timeout=300_000)
    path = HERE / "planning-11-guidance.jpg"
    png = path.with_suffix(".png")
    page.screenshot(path=str(png))
    picture = Image.open(png).convert("RGB")
    picture.resize((WIDTH, WIDTH * picture.height // picture.width), Image.Resampling.LANCZOS).save(path, quality=78)
    png.unlink()
    page.close()
    if demo.wait():
        raise RuntimeError("fluoronav demo failed")


def briefing(case: Path, work: Path) -> None:
    """The first page of the briefing."""
    run("report", "briefing", str(case), "--out", str(work / "briefing.pdf"))
    stem = work / "briefing"
    command = ["pdftoppm", "-r", "100", "-gray", "-png", "-singlefile", str(stem.with_suffix(".pdf")), str(stem)]
    subprocess.run(command, check=True)
    Image.open(stem.with_suffix(".png")).quantize(32).save(HERE / "planning-10-briefing.png", optimize=True)


def main(data: Path, work: Path, *, with_stream: bool) -> None:
    series, case = work / "dicom", work / "cases" / "chest"
    if not series.is_dir():
        write_series(data / "chest" / "ct.nii.gz", series)
    if not (case / "case.yaml").is_file():
        run("plan", "segment", str(series), "--engine", "atlas", "--copy-ct", "--out", str(case))
    other = work / "cases" / "abdomen"
    if not (other / "case.yaml").is_file():
        run("plan", "segment", str(data / "planning" / "patient_b" / "ct.nii.gz"), "--copy-ct", "--out", str(other))
    command = [
        sys.executable,
        "-m",
        "fluoronav",
        "workspace",
        "--cases",
        str(work / "cases"),
        "--user",
        "surgeon",
        "--port",
        "0",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split()[1]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
            walk = Walk(browser.new_page(viewport={"width": 1600, "height": 1000}), address)
            walk.shot("1-cases")
            walk.page.click("[data-case=chest]")
            walk.page.wait_for_selector("body[data-ready=chest]")
            structures(walk)
            plan(walk)
            walk.job("export", "Export", "Case for the guidance")
            walk.close_message()
            walk.tab("Work")
            walk.shot("10-export")
            briefing(case, work)
            walk.page.click("#home")
            walk.page.wait_for_selector("[data-case]")
            level(walk)
            surgery(walk)
            if with_stream:
                guide(case, work, browser)
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), with_stream="--without-stream" not in sys.argv[3:])
