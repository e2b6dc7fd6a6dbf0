"""Makes docs/images/ohif.jpg: a segmentation and a secondary capture of fluoronav in the OHIF viewer.

    npm pack @ohif/app && tar xzf ohif-app-*.tgz
    python docs/images/draw_ohif.py package/dist

Needs the extra `pacs`, playwright, Orthanc with its DICOMweb plug-in, and Chromium. CT and structures are those of the
embedded case, under a made-up patient; the X-ray image is rendered from it.
"""

import mimetypes
import sys
import tempfile
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import cv2
import httpx
import numpy as np
from playwright.sync_api import sync_playwright

from fluoronav.case import load_case
from fluoronav.dicom.objects import (
    Acquisition,
    Graphics,
    Producer,
    Provenance,
    read_source,
    secondary_capture,
    segmentation,
    source_of,
    xray_run,
)
from fluoronav.dicom.objects.graphics import PLAN, TEXT, Line, Text
from fluoronav.geometry import Camera
from fluoronav.lab.bench.chromium import FLAGS, find_chromium
from fluoronav.lab.bench.pacs.rig import Orthanc
from fluoronav.lab.bench.pacs.series import template
from fluoronav.lab.simulation.rig import scaled_camera
from fluoronav.lab.simulation.sequence import load_or_render
from fluoronav.paths import shipped
from fluoronav.site.launch import load_launch

OUT = Path(__file__).with_name("ohif.jpg")
VIEW = {"width": 1280, "height": 800}
SIDE, SLICES = 256, 78
PAUSE_MS = 8000  # for the viewer to load and draw
CONFIG = """
window.config = {
  routerBasename: null, extensions: [], modes: [], customizationService: {}, showStudyList: true,
  maxNumberOfWebWorkers: 2, showLoadingIndicator: true, showCPUFallbackMessage: false,
  strictZSpacingForVolumeViewport: true,
  defaultDataSourceName: 'orthanc',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'orthanc',
    configuration: {
      friendlyName: 'Orthanc', name: 'orthanc', wadoUriRoot: '/dicom-web', qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web', qidoSupportsIncludeField: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false, supportsWildcard: true,
      bulkDataURI: { enabled: true }, omitQuotationForMultipartRequest: true,
    },
  }],
};
"""


def objects():
    """The CT's files as bytes, and the datasets of segmentation, X-ray run and secondary capture; and the study."""
    series = template(SLICES, SIDE)
    provenance = Provenance(Producer(), datetime(2026, 1, 1, 12))
    with tempfile.TemporaryDirectory() as name:
        sent = series.write(Path(name) / "ct", 1)
        source = read_source(Path(name) / "ct")
        files = [path.read_bytes() for path in sent.files]
        seg = segmentation(source, provenance, series.labels, list(series.segments))
        case, launch = load_case("embedded"), load_launch(shipped("launch/demo.yaml"))
        paths_ct = [np.array([path.entry_ct, path.target_ct]) for path in case.plan]
        camera = Camera.load(scaled_camera(launch.camera, 1024, Path(name)))
        sequence = load_or_render(case, camera)
    projected = [[camera.project(ends @ T[:3, :3].T + T[:3, 3]) for ends in paths_ct] for T in sequence.T_camera_ct]
    # The frame in which the paths lie furthest apart.
    k = int(np.argmax([np.linalg.norm(np.subtract(*np.mean(paths, 1))) for paths in projected]))
    counts = np.asarray(sequence.frames[k : k + 1])
    run = xray_run(source, provenance, counts, Acquisition(bits=sequence.bits, times_ms=(0.0,)))
    drawn = list(zip(case.plan, projected[k], strict=True))
    lines = [Line(ends_px, PLAN, "PLAN") for _, ends_px in drawn]
    texts = [Text(ends_px[0] + [0, 40], path.name, TEXT, "TEXT") for path, ends_px in drawn]
    sc = secondary_capture(source_of([run], "run"), provenance, counts[0], Graphics(tuple(lines), (), tuple(texts)))
    return files, [seg, run, sc], sent.study


def as_file(dataset):
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def handler(dist, archive):
    """Serves the viewer, and passes on what it asks the archive."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/dicom-web"):
                asked = {k: v for k, v in self.headers.items() if k.lower() in ("accept", "range")}
                asked["Host"] = self.headers["Host"]
                answer = httpx.get(archive + self.path, headers=asked, trust_env=False, timeout=60)
                self.answer(answer.status_code, answer.headers.get("content-type", "text/plain"), answer.content)
                return
            path = self.path.partition("?")[0]
            file = dist / path.lstrip("/")
            if path == "/app-config.js":
                self.answer(200, "text/javascript", CONFIG.encode())
            elif file.is_file():
                kind = "application/wasm" if file.suffix == ".wasm" else mimetypes.guess_type(file.name)[0]
                self.answer(200, kind or "application/octet-stream", file.read_bytes())
            else:
                self.answer(200, "text/html", (dist / "index.html").read_bytes())

        def answer(self, status, kind, content):
            self.send_response(status)
            for name, value in {
                "Content-Type": kind, "Content-Length": str(len(content)),
                "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp",
                "Cross-Origin-Resource-Policy": "same-origin",
            }.items():  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words):
            pass

    return Handler


def seen(url):
    """A screenshot (PNG) of the viewer: CT with segmentation at the left, secondary capture at the right."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        page = browser.new_page(viewport=VIEW)
        page.set_default_timeout(120_000)
        page.goto(url)
        page.get_by_text("Skip all").click()
        page.get_by_text("Confirm and hide").click()
        page.locator('[data-cy="layout-button"]').click()
        page.locator('[data-cy="Layout-1-0"]').click()
        page.wait_for_timeout(PAUSE_MS)
        panes = page.locator('[data-cy="viewport-pane"]')
        panes.nth(1).click()
        page.locator('[data-cy="study-browser-thumbnail"]', has_text="burnt in").dblclick()
        page.wait_for_timeout(PAUSE_MS)
        panes.nth(0).click()
        page.locator('[data-cy="study-browser-thumbnail-no-image"]', has_text="Segmentation").dblclick()
        page.get_by_text("Yes", exact=True).first.click()  # open it
        page.wait_for_timeout(PAUSE_MS)
        page.evaluate("services.cineService.setIsCineEnabled(false)")  # its buttons lie over the pictures
        panes.nth(0).hover()
        for _ in range(SLICES // 2):
            page.mouse.wheel(0, 100)
            page.wait_for_timeout(50)
        page.wait_for_timeout(PAUSE_MS)
        picture = page.screenshot()
        browser.close()
    return picture


def main():
    dist = Path(sys.argv[1])
    files, made, study = objects()
    with tempfile.TemporaryDirectory() as name:
        orthanc = Orthanc(Path(name) / "archive")
        archive = f"http://127.0.0.1:{orthanc.http}"
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(dist, archive))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            for content in [*files, *map(as_file, made)]:
                httpx.post(f"{archive}/instances", content=content, trust_env=False).raise_for_status()
            picture = seen(f"http://127.0.0.1:{server.server_port}/viewer?StudyInstanceUIDs={study}")
        finally:
            server.shutdown()
            orthanc.stop()
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(OUT), pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(f"written: {OUT}")


if __name__ == "__main__":
    main()
