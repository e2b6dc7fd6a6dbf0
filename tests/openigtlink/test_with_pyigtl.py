"""The bridge as a process with a stand-in for the pipeline, and pyigtl's independent client."""

import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.display.conftest import launch_file
from tests.display.pipeline_stand_in import CASE, StandIn, alert, overlay

from fluoronav.geometry import Camera, frame_along, transform_points
from fluoronav.paths import shipped

pyigtl = pytest.importorskip("pyigtl", reason="pyigtl is not installed (extra `dev`)")
pytest.importorskip("skimage", reason="the extra `igtl` is not installed")
from fluoronav.openigtlink.patient_frame import PICTURE_DEPTH, RAS_FROM_LPS  # noqa: E402


class PolyData(pyigtl.PolyDataMessage):
    """POLYDATA by openigtlink.org/protocols/v3_polydata; pyigtl 0.3 can send it but not read it."""

    def _unpack_content(self, content):
        n, n_vertices, _, n_lines, _, n_polygons, size, *_ = struct.unpack_from("> 10I", content)
        assert n_vertices == n_lines == 0
        self.points = np.frombuffer(content, ">f4", 3 * n, 40).reshape(n, 3)
        self.polygons = np.frombuffer(content, ">u4", size // 4, 40 + 12 * n).reshape(n_polygons, 4)


pyigtl.messages.message_type_to_class_constructor["POLYDATA"] = PolyData
T_CAMERA_CT = CASE.prior.T_camera_ct()
TARGET = np.array(CASE.plan[0].target_ct)


@pytest.fixture
def slicer(tmp_path, free_port):
    """A stand-in for the pipeline, the bridge, and a client."""
    stand_in = StandIn()
    command = [sys.executable, "-m", "fluoronav", "bridge", "igtl", "--serve", str(free_port)]
    process = subprocess.Popen(
        [*command, "--launch", str(launch_file(tmp_path, stand_in))], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    assert f"serving OpenIGTLink at 127.0.0.1:{free_port}" in process.stdout.readline()
    client = pyigtl.OpenIGTLinkClient("127.0.0.1", free_port)
    yield stand_in, client, process
    client.stop()
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    stand_in.close()


def received(stand_in, client, wanted, seconds=90.0):
    """Streams until everything wanted has come; messages by device."""
    axis = [0.6, 0.0, 0.8]
    instrument = overlay(0)["instruments"][0] | {"tip_ct": TARGET.tolist(), "axis_ct": axis}
    registration = overlay(0)["registration"] | {"T_camera_ct": T_CAMERA_CT.ravel().tolist()}
    got, end, k = {}, time.monotonic() + seconds, 0
    while not wanted <= set(got):
        assert time.monotonic() < end, f"never came: {wanted - set(got)}"
        k += 1
        stand_in.picture(k)
        stand_in.say("overlay", overlay(k, instruments=[instrument], registration=registration))
        stand_in.say("alert", alert(1, "high"))
        stand_in.send([b"overlay/x", b"nonsense"])
        time.sleep(0.03)
        got |= {m.device_name: m for m in client.get_latest_messages()}
    return got


def test_slicer_gets_picture_poses_structures_and_texts(slicer):
    stand_in, client, _ = slicer
    structures = {s.name for s in CASE.structures}
    got = received(
        stand_in, client, structures | {"Fluoroscopy", "CameraToPatient", "kwireToPatient", "Status", "Alert"}
    )
    assert got["CameraToPatient"].matrix == pytest.approx(RAS_FROM_LPS @ np.linalg.inv(T_CAMERA_CT), abs=1e-3)
    assert got["kwireToPatient"].matrix == pytest.approx(RAS_FROM_LPS @ frame_along(TARGET, [0.6, 0, 0.8]), abs=1e-3)
    assert got["Status"].string.startswith("tracking, 95 % within 0.6 mm")
    assert got["Alert"].string == "HIGH raised: kwire is 0.8 mm from the spinal cord"
    # A structure lies where the label map has it, right and front negative.
    bone = next(s for s in CASE.structures if s.name == "vertebrae_T8")
    points = got["vertebrae_T8"].points * [-1, -1, 1]
    distance, _ = bone.field.sample(points.astype(np.float64))
    assert np.median(np.abs(distance)) < 0.3 and np.abs(distance).max() < 1.5
    assert (got["vertebrae_T8"].polygons[:, 0] == 3).all()
    got = received(stand_in, client, {"Fluoroscopy"})  # one that was sent when the pose was known
    # The picture's pixels lie on the rays of the camera, behind the target.
    image = got["Fluoroscopy"]
    assert image.world_coordinate_system == "ras"
    assert image.image.shape == (1, 512, 512) and image.image.dtype == np.uint16
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    pixel = np.array([300.0, 120.0])
    place = (image.ijk_to_world_matrix @ [*pixel, 0, 1])[:3] * [-1, -1, 1]
    back = camera.scaled(0.5).project(transform_points(T_CAMERA_CT, place[None]))[0]
    assert back == pytest.approx(pixel, abs=0.05)
    depth = transform_points(T_CAMERA_CT, np.stack([place, TARGET]))[:, 2]
    assert depth[0] == pytest.approx(PICTURE_DEPTH * depth[1], rel=1e-3)


def test_a_client_that_reconnects_is_served_again_and_the_end_is_announced(slicer):
    stand_in, client, process = slicer
    received(stand_in, client, {"CameraToPatient", "vertebrae_T8"})
    client.stop()
    again = pyigtl.OpenIGTLinkClient("127.0.0.1", client.port)
    try:
        assert len(received(stand_in, again, {"vertebrae_T8", "Fluoroscopy"})["vertebrae_T8"].points) > 1000
    finally:
        again.stop()
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 0, text
    assert "POLYDATA" in text and "invalid" in text
