"""A restart during an operation: the same patient, and no live mode before a person confirms."""

import json
import time

import numpy as np
import pytest

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.lab.simulation.sequence import load_or_render
from tests.conftest import another_case
from tests.live.conftest import Pipeline


def kill(pipeline):
    pipeline.process.kill()
    pipeline.process.wait()


def health(pipeline):
    return pipeline.request("status")["result"]


def load(pipeline, name):
    assert pipeline.request("case.load", case=name)["ok"]

    def loaded():
        pipeline.seq += 1
        pipeline.send_raw(pipeline.header())
        time.sleep(0.03)
        return [h for h in pipeline.messages("health") if h["case_name"] == name]

    return pipeline.wait(loaded, what="the other case")[-1]


@pytest.fixture
def second(tmp_path):
    """A pipeline with the second case, confirmed, and no planned path shown."""
    another_case(tmp_path)
    pipeline = Pipeline(tmp_path, cases={"second": "another"}).ready().confirm()
    assert pipeline.frame()["mode"] == "live"
    assert load(pipeline, "second")["mode"] == "shadow"  # nobody has confirmed this one
    assert pipeline.frame()["mode"] == "shadow"
    pipeline.confirm()
    assert pipeline.request("plan.set", trajectories=[])["ok"]
    assert pipeline.frame()["mode"] == "live"
    yield pipeline
    pipeline.close()


def test_after_a_crash_the_same_patient_is_in_shadow_until_a_person_confirms(second):
    before = health(second)
    kill(second)
    said = second.start_again().messages("health")
    assert {h["mode"] for h in said} == {"shadow"}
    now = health(second)
    assert (now["case"], now["case_name"]) == (before["case"], "second")
    expected = {"confirmed": False, "accepted": False, "accepted_t": None, "plan": [], "restored": True}
    assert now["session"] == expected
    assert now["instance"] != before["instance"] and now["reason"] == ""
    overlay = second.frame()
    assert overlay["mode"] == "shadow" and overlay["plan"] == []
    assert second.request("mode.set", mode="live")["error"]["code"] == "not_confirmed"
    second.confirm()
    assert second.frame()["mode"] == "live" and health(second)["session"]["confirmed"]


def test_shadow_mode_stays_after_a_restart_and_the_confirmation(second):
    assert second.request("mode.set", mode="shadow")["ok"]
    kill(second)
    second.start_again().confirm()
    assert second.frame()["mode"] == "shadow"


@pytest.mark.parametrize("change", ["gone", "other", "garbled", "cut", "old", "broken"])
def test_a_session_that_no_longer_fits_is_not_restored_and_the_reason_is_given(second, change):
    kill(second)
    path = second.path.parent / "audit" / "session-carm0.json"
    content = json.loads(path.read_text())
    launch = second.path.read_text()
    said = {"gone": "not in the launch file", "other": "and is", "old": "hours old", "broken": "cannot be loaded"}
    if change == "gone":
        second.path.write_text(launch.replace("second:", "third:"))
    elif change == "other":
        path.write_text(json.dumps(content | {"case": "another@000000000000"}))
    elif change == "old":
        path.write_text(json.dumps(content | {"written": content["written"] - 13 * 3600 * 10**9}))
    elif change == "broken":
        (second.path.parent / "another" / "case.yaml").write_text("name: [")
    elif change == "garbled":
        path.write_bytes(b"\xff" * 5000)
    else:
        path.write_bytes(path.read_bytes()[:90])
    second.start_again()
    second.frame()
    now = health(second)
    assert now["case_name"] == "" and now["case"].startswith("thoracic-spine@")
    assert not now["session"]["confirmed"] and not now["session"]["restored"] and now["mode"] == "shadow"
    assert now["state"] == "degraded" and said.get(change, "cannot be read") in now["reason"]
    second.confirm()
    assert "the session before" not in health(second)["reason"]


def test_an_accepted_registration_stays_accepted_after_a_crash_if_it_is_found_again_at_the_same_pose(tmp_path):
    pipeline = Pipeline(tmp_path, deadline_ms=500).ready().confirm()
    pictures = load_or_render(load_case("embedded"), Camera.load(tmp_path / "camera.yaml")).frames

    def streaming(condition, what):
        def sent():
            pipeline.seq += 1
            pipeline.send_raw(pipeline.header(), np.ascontiguousarray(pictures[pipeline.seq % 4], "<u2"))
            time.sleep(0.04)
            return condition()

        pipeline.wait(sent, 120, what)

    def shown(accepted):
        newest = pipeline.messages("overlay")[-1:]
        return newest and newest[0]["status"] == "tracking" and newest[0]["registration"]["accepted"] == accepted

    assert pipeline.request("registration.accept")["error"]["code"] == "no_registration"
    streaming(lambda: shown(False) and pipeline.request("registration.accept")["ok"], "acceptance")
    streaming(lambda: shown(True), "an accepted pose")
    assert health(pipeline)["session"]["accepted"]
    kill(pipeline)
    pipeline.start_again()
    assert not health(pipeline)["session"]["accepted"]
    streaming(lambda: shown(True), "the same pose")
    assert health(pipeline)["session"]["accepted"]
    assert pipeline.request("registration.reject")["ok"]
    kill(pipeline)
    pipeline.start_again()
    streaming(lambda: shown(False), "a pose that nobody has accepted")
    time.sleep(0.1)
    assert not health(pipeline)["session"]["accepted"]
    pipeline.close()
