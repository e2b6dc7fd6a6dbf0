"""What a surgeon controls: another case, a recording; and what becomes of it when the disk says no."""

import os
import time

import pytest

from fluoronav.recording import read_recording
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


def test_a_case_that_the_launch_file_does_not_name_is_not_loaded(controlled):
    for asked in ({"case": "/etc/passwd"}, {"case": "../another"}, {}, {"case": 7}):
        reply = controlled.request("case.load", **asked)
        assert reply["error"]["code"] == "invalid" and "another, broken" in reply["error"]["text"]


def test_a_case_that_cannot_be_loaded_leaves_the_one_at_hand_at_work(controlled):
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

    health = controlled.wait(loaded, 60, "the other case")[-1]
    assert health["case"].startswith("another@") and health["case"] != before and not health["loading"]
    controlled.frame()
    info = controlled.request("case.info")["result"]
    assert info["name"] == "another" and len(info["plan"]) == 1 and info["cases"] == ["another", "broken"]
    overlays = controlled.messages("overlay")
    numbers = [o["seq"] for o in overlays]
    assert numbers == sorted(set(numbers))
    counted = sum(sum(o["dropped"].values()) for o in overlays)
    assert len(numbers) + counted == numbers[-1] - 1000


def test_a_recording_is_started_and_ended_on_request_and_holds_what_was_sent(controlled):
    started = controlled.request("record.start")["result"]["path"]
    assert controlled.request("record.start")["error"]["code"] == "busy"
    controlled.wait(lambda: [h for h in controlled.messages("health") if h["recording"] == started], 5, "health")
    controlled.wait(lambda: os.path.exists(started), 20, "the file")
    time.sleep(0.5)  # subscriptions
    numbers = []
    for _ in range(5):
        controlled.frame()
        numbers.append(controlled.seq)
    time.sleep(0.3)
    assert controlled.request("record.stop")["result"]["path"] == started
    controlled.wait(lambda: not controlled.messages("health")[-1]["recording"], 5, "the end")
    assert controlled.request("record.stop")["error"]["code"] == "invalid"
    time.sleep(0.5)
    _, messages = read_recording(controlled.path.parent / "recordings" / os.path.basename(started))
    kinds = [(parts[0].split(b"/")[0], parts) for _, parts in messages]
    frames = [parts for kind, parts in kinds if kind == b"frame"]
    assert len(frames) == 5 and frames[0][2] == controlled.image.tobytes()
    assert sum(kind == b"overlay" for kind, _ in kinds) == 5
    assert not [a for a in controlled.messages("alert") if a["kind"] == "storage"]


def test_a_recording_that_dies_is_an_alert_and_the_next_one_ends_it(controlled):
    path = controlled.request("record.start")["result"]["path"]
    controlled.wait(lambda: os.path.exists(path), 20, "the file")
    os.system(f"pkill -9 -f {os.path.basename(path)}")
    raised = controlled.wait(lambda: [a for a in controlled.messages("alert") if a["kind"] == "storage"], 5, "alert")[
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


def test_what_cannot_be_kept_is_not_done_and_alarms(tmp_path):
    (tmp_path / "audit").write_text("a file where the folder should be")
    pipeline = Pipeline(tmp_path).ready()
    pipeline.frame()
    reply = pipeline.request("mode.set", mode="shadow")
    assert reply["error"]["code"] == "storage" and "audit" in reply["error"]["text"]
    assert pipeline.frame()["mode"] == "live"
    raised = pipeline.wait(lambda: [a for a in pipeline.messages("alert") if a["kind"] == "storage"], 5, "alert")[0]
    (tmp_path / "audit").unlink()
    assert pipeline.request("mode.set", mode="shadow")["ok"]
    cleared = pipeline.wait(lambda: [a for a in pipeline.messages("alert") if a["state"] == "cleared"], 5, "its end")[0]
    assert cleared["id"] == raised["id"] and pipeline.frame()["mode"] == "shadow"
    pipeline.close()
