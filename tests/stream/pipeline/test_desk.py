"""A request is answered whatever becomes of it."""

from types import SimpleNamespace

import msgpack
import msgspec
import pytest

from fluoronav.paths import shipped
from fluoronav.site.audit import AuditError
from fluoronav.site.launch import load_launch
from fluoronav.stream.pipeline.desk import RequestDesk
from fluoronav.stream.pipeline.operations import Operations
from fluoronav.stream.pipeline.session_keeper import SessionKeeper


@pytest.fixture
def desk(tmp_path):
    launch = load_launch(shipped("launch/demo.yaml"), audit=str(tmp_path))
    watchdog = SimpleNamespace(say_storage=lambda fault: None)
    health = SimpleNamespace(message=lambda: {"state": "starting"}, loading="")
    keeper = SessionKeeper(launch)
    return RequestDesk(
        launch, None, Operations(launch, health, watchdog, None, keeper, lambda: None, lambda name: None)
    )


def asked(op, **args):
    return msgpack.packb({"v": 1, "id": 7, "op": op, "args": args, "user": ""})


@pytest.mark.parametrize(
    "body, code", [(b"rubbish", "invalid"), (asked("case.load", case="x"), "not_ready"), (asked("magic"), "invalid")]
)
@pytest.mark.parametrize("raised", [AuditError("the disk is gone"), RuntimeError("a defect")])
def test_a_trail_that_fails_while_a_request_is_refused_costs_no_reply(desk, monkeypatch, body, code, raised):
    """Regression: the error escaped, and the client never got a reply."""

    def keep(event):
        raise raised

    monkeypatch.setattr(desk._trail, "keep", keep)
    reply = desk._reply(body)
    assert reply.ok is False and reply.error.code == code


def test_a_request_that_needs_no_case_is_answered_during_the_start(desk):
    assert msgspec.to_builtins(desk._reply(asked("status"))) == {
        "v": 1,
        "id": 7,
        "ok": True,
        "result": {"state": "starting"},
    }
