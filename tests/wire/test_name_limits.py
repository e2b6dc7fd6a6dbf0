"""Every name that a message holds fits its schema, however long the names are that it is made of."""

import time

import msgspec
import numpy as np
import pytest
from msgspec import inspect
from pydantic import TypeAdapter, ValidationError

from fluoronav.case import schema
from fluoronav.case.file import Tracker
from fluoronav.openigtlink.devices import Devices
from fluoronav.site import launch
from fluoronav.stream.alerts import ID_CHARS, AlertBook, alert_id
from fluoronav.stream.frame import (
    Alert,
    Distance,
    FrameRecord,
    Instrument,
    ObjectPose,
    Outline,
    PlanProgress,
)
from fluoronav.stream.pipeline.messages import alert_message, overlay_message
from fluoronav.stream.pipeline.session import MOST_ALERTS, Accepted, Mark, Session, SessionFile
from fluoronav.stream.registration.result import as_result
from fluoronav.wire import messages, requests
from fluoronav.wire.codec import decode_args, encode
from fluoronav.wire.values import NAME_CHARS

NOW = 1_800_000_000_000_000_000
LONGEST = "ü" * (NAME_CHARS - 1) + "1", "ü" * (NAME_CHARS - 1) + "2"
PREFIXES = "", "watch:", "recording:", "picture:"


def kinds():
    field = next(f for f in inspect.type_info(messages.Alert).fields if f.name == "kind")
    return field.type.type.values


def limited(kind, path=()):
    """Paths of all texts in a type that have a longest length."""
    if isinstance(kind, inspect.Metadata):
        yield from limited(kind.type, path)
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from limited(field.type, (*path, field.name))
    elif isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from limited(one, path)
    elif isinstance(kind, inspect.ListType):
        yield from limited(kind.item_type, path)
    elif isinstance(kind, inspect.StrType) and kind.max_length is not None:
        yield path, kind.max_length


def values(content, path):
    if isinstance(content, list):
        return [v for item in content for v in values(item, path)]
    return [content] if not path else values(content[path[0]], path[1:])


def overlay():
    """An overlay in which every name is as long as a case file and a launch file allow."""
    pixel, point = np.zeros(2), np.zeros(3)
    frame = FrameRecord.of_counts(np.ones((2, 2), np.uint16), t_acq=NOW)
    frame.registration = as_result(np.eye(4), 0.9, np.eye(6), np.ones(3))
    frame.objects = (ObjectPose(LONGEST[0], frame.registration),)
    frame.instruments = (
        Instrument(LONGEST[0], LONGEST[1], pixel, pixel, point, point, 0.1, "tracker", 0),
        Instrument(f"image-{2**63}", LONGEST[1], pixel, pixel, None, None, 0.1, "image", 0),
    )
    frame.distances = (Distance(LONGEST[0], LONGEST[1], 1.0, 0.5, point, "clear"),)
    frame.plan = (PlanProgress(LONGEST[0], pixel, pixel, None, None, None),)
    frame.outlines = (Outline(LONGEST[0], "#ffffff", (np.zeros((3, 2)),)),)
    message = overlay_message(frame, "s" * 64, 33.3, {"network": 0, "overload": 0, "invalid": 0}, {}, "live")
    message.t_sent = NOW
    return message


def alert(prefix, kind, names, number=10**18):
    key = (kind, *names)
    held = Alert(alert_id(prefix, key, number), NOW, "raised", "high", kind, *names, 1.0, 0.5, 3.0, "near")
    return alert_message(held, "s" * 64, "0" * 16, 1, NOW)


def test_every_limited_name_of_an_overlay_is_filled_and_fits():
    message = msgspec.msgpack.decode(encode(overlay()), type=messages.Overlay)
    content = msgspec.to_builtins(message)
    paths = list(limited(inspect.type_info(messages.Overlay)))
    assert len(paths) == 8
    for path, most in paths:
        longest = max(map(len, values(content, path)))
        assert longest == most, f"{'.'.join(path)}: {longest} characters were tried, {most} are allowed"


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("names", [(None, None), (LONGEST[0], None), LONGEST])
def test_an_alert_of_the_longest_names_fits_and_can_be_acknowledged(prefix, names):
    for kind in kinds():
        message = msgspec.msgpack.decode(encode(alert(prefix, kind, names)), type=messages.Alert)
        content = msgspec.to_builtins(message)
        for path, most in limited(inspect.type_info(messages.Alert)):
            assert 0 < max(map(len, values(content, path))) <= most
        assert message.id.startswith(prefix + kind)
        asked = request("alert.acknowledge", {"alert": message.id})
        assert decode_args(asked).alert == message.id


def request(op, args):
    return msgspec.convert(requests.make_request(op, args), requests.Request)


def test_the_id_of_an_alert_is_readable_where_it_fits():
    assert alert_id("", ("proximity", "kwire", "aorta"), 7) == "proximity/kwire/aorta/7"
    assert alert_id("watch:", ("stale_frames", None, None), 1) == "watch:stale_frames/1"
    fits = "x" * (ID_CHARS - len("proximity//aorta/7"))
    assert alert_id("", ("proximity", fits, "aorta"), 7) == f"proximity/{fits}/aorta/7"


def test_a_shortened_id_is_the_same_in_every_process_and_tells_long_names_apart():
    ids = [alert_id("", ("proximity", name, LONGEST[0]), 7) for name in LONGEST]
    assert ids[0] != ids[1] and all(len(i) == ID_CHARS for i in ids)
    assert ids[0] == alert_id("", ("proximity", LONGEST[0], LONGEST[0]), 7)
    assert alert_id("", ("proximity", "k" * 64, "s" * 64), 7).endswith("~4b0c7b5d88ce/7")


def test_a_book_gives_ids_that_fit():
    held = AlertBook("recording:").hold("registration_lost", "high", NOW, "", instrument=LONGEST[0])
    assert held is not None and len(held.id) <= ID_CHARS


def test_the_limits_that_are_written_elsewhere_are_the_protocol_s():
    assert ID_CHARS == NAME_CHARS
    for name, is_taken in ((LONGEST[0], True), (LONGEST[0] + "x", False)):
        try:
            TypeAdapter(schema.Name).validate_python(name)
        except ValidationError:
            assert not is_taken
        else:
            assert is_taken
    assert f"{{1,{NAME_CHARS}}}" in launch.SOURCE_NAME


def test_a_marker_s_name_that_no_tracker_could_send_is_refused():
    Tracker(reference=LONGEST[0])
    with pytest.raises(ValidationError):
        Tracker(reference=LONGEST[0] + "x")


def test_the_id_and_the_name_of_a_case_fit_into_the_requests_that_name_them():
    assert len(f"{LONGEST[0]}@{'0' * 12}") <= requests.WORDS_CHARS
    for op in ("case.load", "case.confirm"):
        assert decode_args(request(op, {"case": "ü" * 256})).case
    assert decode_args(request("plan.set", {"trajectories": [LONGEST[0]]})).trajectories


def test_a_device_of_any_name_is_a_tool_whose_id_fits():
    devices = Devices({})
    for device in ("x" * 300, "x" * 300 + "ToTracker", "ToTracker", ""):
        tool = devices.tool(device, False, 0.0)
        message = messages.ToolPose(id=tool, visible=False)
        assert msgspec.convert(msgspec.to_builtins(message), messages.ToolPose).id == tool


def test_as_many_alerts_as_are_kept_fit_into_the_session_file(tmp_path):
    name = "\U0001f9b4" * NAME_CHARS  # twelve characters each in JSON
    text = f"the distance of {name} from the {name} is no longer measured; it was 12.3 mm, and more words"
    kept = Alert(name, NOW, "acknowledged", "medium", "proximity", name, name, 12.3, 1 / 3, 1 / 3, text)
    session = Session(
        launch="/" + "x" * 4095, case_name=name * 4, case=name + "@0123456789ab", mode="shadow", plan=(name,) * 256,
        confirmed=Mark(user=name, t=NOW), alerts=(kept,) * MOST_ALERTS, written=time.time_ns(),
        accepted=Accepted(user=name, t=NOW, T_camera_ct=(1 / 3,) * 16),
    )  # fmt: skip
    file = SessionFile(tmp_path, "s" * 64)
    file.write(session)
    assert file.read(session.launch) == session
