"""Start and stop, and what prevents them."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import pytest
import yaml
import zmq

from fluoronav.lab.simulation.rig import free_endpoints
from fluoronav.site.launch import load_launch
from fluoronav.stream.pipeline.service import Service
from tests.live.conftest import SIZE, Pipeline

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "fluoronav"]


def cli(*arguments, timeout=300):
    return subprocess.run([*CLI, *arguments], capture_output=True, text=True, timeout=timeout)


def test_sigterm_ends_it_cleanly(tmp_path):
    pipeline = Pipeline(tmp_path, cold=True).ready()
    pipeline.frame()
    pipeline.process.terminate()
    assert pipeline.process.wait(5) == 0
    pipeline.close()


def test_readiness_is_published_at_once(tmp_path, monkeypatch):
    """Regression: readiness was published with the next health, up to a second later."""
    monkeypatch.setattr("fluoronav.stream.pipeline.health._EVERY_S", 3600)
    endpoints = free_endpoints("tcp", tmp_path)
    path = tmp_path / "launch.yaml"
    camera = str(ROOT / "calibration" / "demo-carm.yaml")
    content = {"case": "embedded", "camera": camera, "stages": ["attenuation"], "audit": str(tmp_path)}
    path.write_text(yaml.safe_dump(content | {"endpoints": endpoints}))
    context = zmq.Context()
    display = context.socket(zmq.SUB)
    display.connect(endpoints["out"])
    display.subscribe("health/")
    service = Service(load_launch(path))
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        assert display.poll(20_000), "nobody said that it is ready"
        states = [msgpack.unpackb(display.recv_multipart()[1])["state"]]
        while states[-1] == "starting" and display.poll(20_000):
            states.append(msgpack.unpackb(display.recv_multipart()[1])["state"])
        assert states[-1] == "ready"
    finally:
        service.stop()
        thread.join(10)
        context.destroy(linger=0)


def test_a_stop_request_ends_it_cleanly_and_status_reports_the_state(tmp_path):
    pipeline = Pipeline(tmp_path, cold=True).ready()
    asked = cli("status", "--endpoint", pipeline.endpoints["requests"])
    assert asked.returncode == 0 and asked.stdout.startswith("ready: case thoracic-spine@")
    assert pipeline.request("stop")["ok"]
    assert pipeline.process.wait(5) == 0
    pipeline.close()
    asked = cli("status", "--endpoint", pipeline.endpoints["requests"], "--timeout", "0.3")
    assert asked.returncode == 1 and "is `fluoronav run` running?" in asked.stderr


def test_the_view_is_sent_after_its_overlay(tmp_path):
    pipeline = Pipeline(tmp_path, stages=["attenuation", "registration", "view"]).ready()
    for _ in range(3):
        overlay = pipeline.frame()
        view = pipeline.wait(
            lambda: [v for v in pipeline.messages("view") if v["seq"] == pipeline.seq], what="picture"
        )[0]
        assert view["t_acq"] == overlay["t_acq"] and (view["rows"], view["cols"]) == (SIZE, SIZE)
        assert view["dtype"] == "u1" and len(view["payload"]) == SIZE * SIZE and len(set(view["payload"])) > 50
        # A frame that comes while its maker has not put the last picture down has none; beside a search that takes
        # a while after it was sent.
        time.sleep(0.3)
    with pipeline.lock:
        order = [k for _, k, m in pipeline.heard if k in ("overlay", "view")]
    assert order == ["overlay", "view"] * 3
    pipeline.close()


def test_an_endpoint_in_use_is_named(tmp_path):
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    launch = {"case": "embedded", "camera": str(ROOT / "calibration/demo-carm.yaml")}
    launch["endpoints"] = {"out": f"tcp://127.0.0.1:{port}"}
    (tmp_path / "launch.yaml").write_text(yaml.safe_dump(launch))
    ended = cli("run", str(tmp_path / "launch.yaml"))
    socket.close()
    context.term()
    assert ended.returncode == 1
    assert f"endpoints.out tcp://127.0.0.1:{port}" in ended.stderr and "already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"case": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
        ({"camera": "nowhere.yaml"}, "nowhere.yaml: cannot be read as a camera file"),
        ({"colour": "red"}, "colour: unknown key"),
    ],
)
def test_an_impossible_start_gives_its_reason_in_one_line(tmp_path, change, said):
    launch = {"case": "embedded", "camera": str(ROOT / "calibration/demo-carm.yaml")} | change
    launch["endpoints"] = {"out": f"ipc://{tmp_path}/o", "requests": f"ipc://{tmp_path}/r"}
    (tmp_path / "launch.yaml").write_text(yaml.safe_dump(launch))
    ended = cli("run", str(tmp_path / "launch.yaml"))
    assert ended.returncode == 1 and said in ended.stderr and "Traceback" not in ended.stderr


def test_case_build_lists_the_content_of_the_case():
    built = cli("case", "build", "embedded")
    assert built.returncode == 0
    assert re.search(r"structure aorta: label 52, caution 6 mm, danger 3 mm", built.stdout)
    assert "trajectory T8_left" in built.stdout


def test_the_examples_work_with_the_real_pipeline(tmp_path):
    """A grabber and a display as another vendor writes them: 30 lines each, without our package."""
    for name in ("grabber.py", "display.py", "confirm.py"):
        source = (ROOT / "examples" / name).read_text()
        imports = set(re.findall(r"^(?:import|from) (\w+)", source, re.M))
        assert imports <= {"argparse", "time", "uuid", "msgpack", "numpy", "zmq"}
        code = [line for line in source.split('"""', 2)[2].splitlines() if line.strip()]
        assert len(code) <= 30
    pipeline = Pipeline(tmp_path)
    pipeline.pub.close()  # the example binds this endpoint
    pipeline.ready()
    display = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "examples/display.py"),
            "--overlays",
            "20",
            "--endpoint",
            pipeline.endpoints["out"],
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.5)
    grabber = [sys.executable, str(ROOT / "examples/grabber.py"), "--frames", "40", "--size", "256"]
    subprocess.run([*grabber, "--endpoint", pipeline.endpoints["frames"]], check=True, timeout=120)
    shown, _ = display.communicate(timeout=120)
    assert display.returncode == 0
    assert len(re.findall(r"^frame \d+: searching", shown, re.M)) == 20
    confirm = [sys.executable, str(ROOT / "examples/confirm.py"), "--user", "tester"]
    confirm += ["--endpoint", pipeline.endpoints["requests"]]
    done = subprocess.run(confirm, input="yes\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "confirmed" in done.stdout
    assert pipeline.request("status")["result"]["session"]["confirmed"]
    pipeline.close()
