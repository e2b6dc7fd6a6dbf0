"""Loading a case and recording on request, also on a full disk."""

import json
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fluoronav.recording import read_recording
from fluoronav.site.audit import verify_trail
from tests.conftest import another_case
from tests.live.conftest import Pipeline


@pytest.fixture(scope="module")
def controlled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("control")
    another_case(folder)
    (folder / "broken.yaml").write_text("name: broken\nct: nowhere.nrrd\nprior: {}\n")
    cases = {"another": "another", "broken": "broken.yaml"}
    pipeline = Pipeline(folder, cases=cases, recordings="recordings").ready()
    yield pipeline
    pipeline.close()


def case_of(pipeline):
    return pipeline.messages("health")[-1]["case"]


def test_a_case_that_is_not_in_the_launch_file_is_not_loaded(controlled):
    for asked in ({"case": "/etc/passwd"}, {"case": "../another"}, {}, {"case": 7}):
        reply = controlled.request("case.load", **asked)
        assert reply["error"]["code"] == "invalid" and "another, broken" in reply["error"]["text"]


def test_a_case_that_cannot_be_loaded_leaves_the_current_one_in_use(controlled):
    controlled.frame()
    before = case_of(controlled)
    assert controlled.request("case.load", case="broken")["result"] == {"loading": "broken"}
    told = controlled.wait(
        lambda: [h for h in controlled.messages("health") if h["error"].startswith("case.load broken")],
        20,
        "the reason",
    )[-1]
    assert "broken.yaml" in told["error"] and told["case"] == before and told["state"] != "failed"
    controlled.frame()


def test_another_case_is_loaded_while_frames_come_and_no_number_is_lost_silently(controlled):
    before = case_of(controlled)
    assert controlled.request("case.load", case="another")["ok"]
    assert controlled.request("case.load", case="another")["error"]["code"] == "busy"

    def loaded():
        controlled.seq += 1
        controlled.send_raw(controlled.header())  # the old case guides on meanwhile
        time.sleep(0.03)
        return [h for h in controlled.messages("health") if h["case_name"] == "another"]

    health = controlled.wait(loaded, what="the other case")[-1]
    assert health["case"].startswith("another@") and health["case"] != before and not health["loading"]
    controlled.frame()
    info = controlled.request("case.info")["result"]
    assert (
        info["name"] == "another"
        and info["procedure"] is None
        and len(info["plan"]) == 1
        and info["cases"] == ["another", "broken"]
    )
    overlays = controlled.messages("overlay")
    numbers = [o["seq"] for o in overlays]
    assert numbers == sorted(set(numbers))
    counted = sum(sum(o["dropped"].values()) for o in overlays)
    assert len(numbers) + counted == numbers[-1] - 1000


def test_a_recording_is_started_and_ended_on_request_and_holds_what_was_sent(controlled):
    started = controlled.request("record.start")["result"]["path"]
    assert controlled.request("record.start")["error"]["code"] == "busy"
    controlled.wait(lambda: [h for h in controlled.messages("health") if h["recording"] == started], what="health")
    controlled.wait(lambda: os.path.exists(started), what="the file")
    time.sleep(0.5)  # subscriptions
    numbers = []
    for _ in range(5):
        controlled.frame()
        numbers.append(controlled.seq)
    time.sleep(0.3)
    assert controlled.request("record.stop")["result"]["path"] == started
    controlled.wait(lambda: not controlled.messages("health")[-1]["recording"], what="the end")
    assert controlled.request("record.stop")["error"]["code"] == "invalid"
    time.sleep(0.5)
    _, messages = read_recording(controlled.path.parent / "recordings" / os.path.basename(started))
    kinds = [(parts[0].split(b"/")[0], parts) for _, parts in messages]
    frames = [parts for kind, parts in kinds if kind == b"frame"]
    assert len(frames) == 5 and frames[0][2] == controlled.picture(numbers[0]).tobytes()
    assert sum(kind == b"overlay" for kind, _ in kinds) == 5
    assert not [a for a in controlled.messages("alert") if a["kind"] == "storage"]


def test_a_recording_that_dies_is_an_alert_and_the_next_one_ends_it(controlled):
    path = controlled.request("record.start")["result"]["path"]
    controlled.wait(lambda: os.path.exists(path), what="the file")
    os.system(f"pkill -9 -f {os.path.basename(path)}")
    raised = controlled.wait(lambda: [a for a in controlled.messages("alert") if a["kind"] == "storage"], what="alert")[
        -1
    ]
    assert raised["state"] == "raised" and os.path.basename(path) in raised["text"]
    assert controlled.request("record.start")["ok"]
    cleared = controlled.wait(
        lambda: [a for a in controlled.messages("alert") if a["kind"] == "storage" and a["state"] == "cleared"],
        5,
        "end",
    )[-1]
    assert cleared["id"] == raised["id"]
    assert controlled.request("record.stop")["ok"]


def test_a_request_that_cannot_be_audited_is_refused_with_an_alert(tmp_path):
    (tmp_path / "audit").write_text("a file where the folder should be")
    pipeline = Pipeline(tmp_path).ready()
    pipeline.frame()
    reply = pipeline.request("plan.set", trajectories=["T8_right"])
    assert reply["error"]["code"] == "storage" and "audit" in reply["error"]["text"]
    assert [p["trajectory"] for p in pipeline.frame()["plan"]] == ["T8_left", "T8_right"]
    raised = pipeline.wait(lambda: [a for a in pipeline.messages("alert") if a["kind"] == "storage"], what="alert")[0]
    (tmp_path / "audit").unlink()
    assert pipeline.request("plan.set", trajectories=["T8_right"])["ok"]
    assert [p["trajectory"] for p in pipeline.frame()["plan"]] == ["T8_right"]

    def ended():
        return [a for a in pipeline.messages("alert") if a["state"] == "cleared" and a["kind"] == "storage"]

    assert pipeline.wait(ended, what="its end")[0]["id"] == raised["id"]
    pipeline.close()


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of 64 kB."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("a small filesystem can be mounted by root alone")
    folder = tmp_path / "audit"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no filesystem can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_on_a_full_disk_guidance_can_be_stopped_and_requests_are_written_when_there_is_room(small_disk, tmp_path):
    pipeline = Pipeline(tmp_path).ready().confirm()
    assert pipeline.frame()["mode"] == "live"
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 512):
            pass
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while file.write(b"x"):
            pass
    for k in range(40):  # what is left in the trail's last page is used up, too
        if pipeline.request("plan.set", trajectories=["T8_left"] * (k % 3)).get("error"):
            break
    for op, args in (
        ("mode.set", {"mode": "live"}), ("plan.set", {"trajectories": []}),
        ("case.confirm", {"case": pipeline.messages("health")[-1]["case"]}),
    ):  # fmt: skip
        assert pipeline.request(op, **args)["error"]["code"] == "storage"
    assert pipeline.request("mode.set", mode="shadow")["ok"]
    assert pipeline.frame()["mode"] == "shadow"
    assert pipeline.request("registration.reject")["ok"] and pipeline.request("registration.start")["ok"]
    stored = pipeline.wait(lambda: [a for a in pipeline.messages("alert") if a["kind"] == "storage"], what="alert")[0]
    assert pipeline.request("alert.acknowledge", alert=stored["id"])["ok"]
    filler.unlink()
    pipeline.wait(lambda: any(a["state"] == "cleared" for a in pipeline.messages("alert")), what="room")
    assert pipeline.request("mode.set", mode="live")["ok"]
    (trail,) = small_disk.glob("pipeline-*.jsonl")
    assert verify_trail(trail)
    asked = [e["op"] for e in map(json.loads, trail.read_text().splitlines()) if e["event"] == "asked"]
    assert asked[-5:] == ["mode.set", "registration.reject", "registration.start", "alert.acknowledge", "mode.set"]
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 512):
            pass
    assert pipeline.request("stop")["ok"]
    assert pipeline.process.wait(8) == 0
    pipeline.close()


def test_a_recorder_does_not_outlive_its_pipeline_and_leaves_a_whole_file(tmp_path):
    pipeline = Pipeline(tmp_path, recordings="recordings").ready()
    path = pipeline.request("record.start")["result"]["path"]
    pipeline.wait(lambda: os.path.exists(path), what="the file")
    time.sleep(0.5)  # subscriptions
    for _ in range(3):
        pipeline.frame()
    time.sleep(0.3)
    recorder = psutil.Process(pipeline.process.pid).children()[0]
    pipeline.process.kill()
    pipeline.process.wait()
    recorder.wait(3)
    size = os.path.getsize(path)
    pipeline.start_again()
    assert pipeline.messages("health")[-1]["recording"] == "" and os.path.getsize(path) == size
    _, messages = read_recording(Path(path))
    assert sum(parts[0] == b"frame/carm0" for _, parts in messages) == 3
    assert os.stat(path).st_mode & 0o077 == 0 and os.stat(tmp_path / "recordings").st_mode & 0o077 == 0
    pipeline.close()
