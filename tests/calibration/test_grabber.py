"""What `fluoronav check grabber` says of grabbers that are right, and of what vendors get wrong."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import msgpack
import numpy as np
import pytest
import zmq
from tests.conftest import ROOT

from fluoronav.calibration.grabber_check import check_frames, has_to_be_mended
from fluoronav.calibration.grabber_orientation import check_orientation
from fluoronav.calibration.grabber_stream import HeardFrames
from fluoronav.cli import main
from fluoronav.geometry import Camera
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.paths import shipped
from fluoronav.wire import FrameHeader

SIZE, ENDPOINT, START = 64, "tcp://127.0.0.1:5550", 1_800_000_000_000_000_000
CAMERA = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(SIZE / 1024)


def heard(n=60, change=lambda k: {}, pixels=None, delay_ms=lambda k: 2.0, period_ms=33.0):
    """A stream of frames, each changed as a vendor would have it wrong."""
    pixels = np.linspace(500, 60000, SIZE * SIZE).reshape(SIZE, SIZE).astype("u2") if pixels is None else pixels
    found = HeardFrames(pictures=[pixels], used_bits=int(np.bitwise_or.reduce(pixels, axis=None)), seconds=5.0)
    for k in range(n):
        t = START + round(k * period_ms * 1e6)
        head = {"v": 1, "source": "carm0", "seq": k, "t_acq": t, "rows": SIZE, "cols": SIZE, "dtype": "u2", "bits": 16}
        head |= change(k)
        found.headers.append(FrameHeader(**head))
        found.t_recv.append(t + round(delay_ms(k) * 1e6))
    return found


def said(frames, about, camera=CAMERA):
    return [(f.verdict, f.text) for f in check_frames(frames, ENDPOINT, camera) if f.about == about]


def test_a_good_stream_has_nothing_to_mend():
    findings = check_frames(heard(), ENDPOINT, CAMERA)
    assert not has_to_be_mended(findings), [f for f in findings if f.verdict == "mend"]
    assert {f.about for f in findings} >= {"wire version", "size", "bits", "polarity", "seq", "clock", "drift", "pace"}


@pytest.mark.parametrize(
    ("frames", "about", "words"),
    [
        (heard(change=lambda k: {"rows": 32}), "size", "frames have 64 x 32 pixels"),
        (heard(change=lambda k: {"bits": 14}), "bits", "`bits` is 14, but pixels have up to 60000, which takes 16"),
        (heard(change=lambda k: {"seq": 2 * k}), "seq", "it goes up by 2 each time: count exposures"),
        (heard(change=lambda k: {"seq": k + 5 * (k > 9)}), "seq", "1 gaps, 5 frames missing of 65: frames are lost"),
        (heard(change=lambda k: {"seq": k // 2}), "seq", "30 frames have the number of the frame before"),
        (heard(change=lambda k: {"seq": k % 30}), "seq", "29 was followed by 0 after 0.03 s: the pipeline refuses ten"),
        (heard(change=lambda k: {"t_acq": START}), "clock", "does not go up with each frame"),
        (heard(delay_ms=lambda k: 3000.0), "clock", "frames arrive 3000 ms after their `t_acq`"),
        (heard(delay_ms=lambda k: -400.0), "clock", "frames are dated 400 ms into the future and are refused"),
        (heard(delay_ms=lambda k: 0.2 * k), "drift", "the clocks run apart"),
        (heard(delay_ms=lambda k: 100.0 * (k % 4 == 0)), "pace", "they arrive in bursts (delays of 0 to 100 ms)"),
        (heard(change=lambda k: {"sdd_mm": 700.0, "pixel_mm": [4.6875] * 2}), "geometry", "a zoom or another distance"),
        (heard(change=lambda k: {"camera": "other"}), "geometry", "camera: is 'other'"),
    ],
)  # fmt: skip
def test_what_a_vendor_gets_wrong_is_said_in_words(frames, about, words):
    findings = said(frames, about)
    assert any(verdict == "mend" and words in text for verdict, text in findings), findings


def test_fourteen_bits_are_told_apart_by_where_they_stand(rng):
    low = rng.integers(0, 2**14, (SIZE, SIZE)).astype("u2")
    assert said(heard(pixels=low, change=lambda k: {"bits": 14}), "bits")[0][0] == "ok"
    assert said(heard(pixels=low << 2), "bits")[0][0] == "ok"
    ((verdict, text),) = said(heard(pixels=low), "bits")
    assert verdict == "mend" and "(right-aligned) has to say `bits` 14" in text
    ((verdict, text),) = said(heard(pixels=low << 2, change=lambda k: {"bits": 14}), "bits")
    assert verdict == "mend" and "shift right by 2, since the lowest 2 are always 0 (left-aligned)" in text


def test_a_picture_with_the_wrong_polarity_is_told_by_its_round_field(rng):
    y, x = np.mgrid[:256, :256] / 256 - 0.5
    noise = rng.standard_normal(x.shape)
    counts = np.where(np.hypot(x, y) < 0.45, 30000 + 500 * noise, 300 + 20 * noise).astype("u2")
    assert said(heard(pixels=counts), "polarity")[0][0] == "ok"
    verdict, text = said(heard(pixels=counts, change=lambda k: {"polarity": "inverse"}), "polarity")[0]
    assert verdict == "mend" and "counts" in text


def test_a_restart_after_silence_is_as_it_should_be():
    frames = heard(n=40, change=lambda k: {"seq": k % 20, "t_acq": START + 33_000_000 * k + 700_000_000 * (k > 19)})
    frames.t_recv = [h.t_acq + 2_000_000 for h in frames.headers]
    assert ("ok", "began again at 0 after 0.7 s of silence: believed") in said(frames, "seq")


def test_pictures_that_repeat_are_pointed_at():
    frames = heard()
    frames.repeated = 30
    assert said(frames, "picture")[0][0] == "look"


@pytest.fixture(scope="module")
def picture(case, camera):
    """The embedded case, exposed near its prior, and its camera."""
    small = camera.scaled(0.5)
    anatomy = Anatomy(case, small.scaled(0.5))
    beam = anatomy.transmission(*anatomy.paths(Scenario().poses(case)[20]))
    beam = np.kron(beam, np.ones((2, 2), np.float32))
    return ImageChain(FlatPanel(), small.rows, small.cols, 3).counts(beam, 1), small


@pytest.mark.parametrize(
    ("done", "words"),
    [(lambda p: p, "neither mirrored nor turned"), (lambda p: p[:, ::-1], "the picture is mirrored left to right")],
)
def test_a_mirrored_picture_is_found_by_searching_the_case(case, picture, done, words):
    counts, camera = picture
    head = FrameHeader(v=1, source="carm0", seq=1, t_acq=START, rows=512, cols=512, dtype="u2", bits=16)
    finding = check_orientation([np.ascontiguousarray(done(counts))], head, case, camera, lambda text: None)
    assert words in finding.text and finding.verdict == ("ok" if "neither" in words else "mend")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Vendor(threading.Thread):
    """A grabber that publishes until it is closed."""

    def __init__(self, port, **change):
        super().__init__(daemon=True)
        self.port, self.change, self.ending = port, change, threading.Event()
        self.start()

    def run(self):
        with zmq.Context() as context, context.socket(zmq.PUB) as out:
            out.bind(f"tcp://127.0.0.1:{self.port}")
            image = np.random.default_rng(0).integers(0, 2**16, (SIZE, SIZE)).astype("<u2")
            for seq in range(10**6):
                head = {"v": 1, "source": "carm0", "seq": seq, "t_acq": time.time_ns(), "rows": SIZE, "cols": SIZE,
                        "dtype": "u2", "bits": 16} | self.change  # fmt: skip
                out.send_multipart([b"frame/carm0", msgpack.packb(head), np.roll(image, seq, 0).tobytes()])
                if self.ending.wait(0.02):
                    return

    def close(self):
        self.ending.set()
        self.join()


@pytest.fixture
def camera_file(tmp_path):
    import yaml

    path = tmp_path / "carm.yaml"
    path.write_text(yaml.safe_dump({"rows": CAMERA.rows, "cols": CAMERA.cols, "K": CAMERA.K.tolist()}))
    return str(path)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({}, 0, "ok          size: 64 x 64"),
        ({"v": 2}, 1, "MEND        wire version"),
        ({"bits": 12}, 1, "MEND        bits"),
    ],
)  # fmt: skip
def test_the_verb_listens_says_it_in_words_and_ends_with_1_where_something_has_to_be_mended(
    change, status, words, camera_file, tmp_path, capsys
):
    vendor = Vendor(port := free_port(), **change)
    file = tmp_path / "found.json"
    arguments = [
        "--endpoint",
        f"tcp://127.0.0.1:{port}",
        "--camera",
        camera_file,
        "--seconds",
        "1.2",
        "--json",
        str(file),
    ]
    try:
        assert main(["check", "grabber", *arguments]) == status
    finally:
        vendor.close()
    assert words in capsys.readouterr().out
    assert json.loads(file.read_text())["mend"] == bool(status)


def test_where_nobody_publishes_the_verb_says_so(camera_file, capsys):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    assert (
        main(["check", "grabber", "--endpoint", endpoint, "--camera", camera_file, "--seconds", "0.3", "--json"]) == 1
    )
    result = json.loads(capsys.readouterr().out)
    assert "nothing listens there" in result["findings"][0]["text"]


def examples():
    python = [sys.executable, str(ROOT / "examples/grabber.py"), "--frames", "90", "--size", str(SIZE), "--endpoint"]
    return {"grabber.py": (None, python), "grabber.c": (ROOT / "examples/grabber.c", ["90", str(SIZE)])}


@pytest.mark.parametrize("name", examples())
def test_the_examples_pass_the_check(name, camera_file, tmp_path, capsys):
    source, command = examples()[name]
    if source is not None:
        program = tmp_path / "grabber"
        if shutil.which("gcc") is None:
            pytest.skip("gcc is not installed")
        found = subprocess.run(["gcc", "-E", "-include", "zmq.h", "-xc", "/dev/null"], capture_output=True)
        if found.returncode:
            pytest.skip("zmq.h is not installed (libzmq3-dev)")
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", source, "-o", program, "-lzmq"], check=True)
        command = [str(program), *command]
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    grabber = subprocess.Popen([*command, endpoint])
    try:
        time.sleep(0.5)  # it binds
        status = main(["check", "grabber", "--endpoint", endpoint, "--camera", camera_file, "--seconds", "2.5"])
    finally:
        grabber.kill()
        grabber.wait()
    out = capsys.readouterr().out
    assert status == 0 and "without a gap" in out, out


def test_a_camera_of_another_size_is_named_with_exchanged_rows():
    wide = replace(CAMERA, rows=48)
    tall = heard(change=lambda k: {"rows": 64, "cols": 48})
    assert "(columns and rows are exchanged)" in said(tall, "size", wide)[0][1]
