"""What becomes of a moment, of a case's end and of a run, and whose it is; no process but this."""

import io
import threading
from concurrent.futures import Future

import msgpack
import numpy as np
import pytest
import zmq
from pydicom.uid import generate_uid
from tests.dicom.objects.scene import errors_of
from tests.pacs.conftest import ct_series, until

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects import source_of, write_object
from fluoronav.pacs.database import Database
from fluoronav.pacs.heard import LIMITS, Event, Heard, Moment
from fluoronav.pacs.identities import Identities
from fluoronav.pacs.live_case import LiveCaseError, source_of_case
from fluoronav.pacs.live_results import Mark, of_end, of_moment, of_run
from fluoronav.pacs.marks import MarkError, Marks, ask
from fluoronav.pacs.outgoing import open_outbox
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.spool import Spool
from fluoronav.recording import RecordingError
from fluoronav.recording.file import RecordingWriter
from fluoronav.site.init import init_site
from fluoronav.site.site_file import SiteError, load_site
from fluoronav.wire import FrameHeader, encode

T, SIDE, CASE = 1_770_000_000_000_000_000, 64, "PABCDEFGHIJKLMNOP@0123456789ab"
REGISTRATION = {"accepted": True, "score": 0.9, "tre_mm": 1.0, "tre_image_mm": 0.5}
OVERLAY = {
    "v": 1, "models": {"net": "ab" * 32}, "status": "tracking", "registration": REGISTRATION, "plan": [],
    "outlines": [{"structure": "aorta", "color": "#ff0000", "paths": [[[10, 10], [20, 10], [20, 20]]]}],
    "instruments": [{"id": "kwire", "tip_px": [30, 30], "tail_px": [50, 60]}],
    "distances": [
        {"instrument": "kwire", "structure": "aorta", "distance_mm": 4.0, "lower_mm": 3.0, "level": "caution"}
    ],
}  # fmt: skip
ALERT = {
    "v": 1, "id": "a1", "t_raised": T, "t_acq": T, "state": "raised", "priority": "high", "kind": "proximity",
    "text": "kwire near aorta", "instrument": "kwire", "structure": "aorta", "distance_mm": 2.0, "instance": "one",
}  # fmt: skip


def frame(seq, **change):
    header = {"v": 1, "source": "carm0", "seq": seq, "t_acq": T + seq * 33_000_000, "rows": SIDE, "cols": SIDE,
              "dtype": "u2", "bits": 16} | change  # fmt: skip
    counts = (np.random.default_rng(seq).random((SIDE, SIDE)) * 30000).astype("<u2")
    return [b"frame/carm0", msgpack.packb(header), counts.tobytes()]


def overlay(seq, **change):
    content = OVERLAY | {"seq": seq, "t_acq": T + seq * 33_000_000} | change
    return [b"overlay/carm0", msgpack.packb(content)]


def alert(state, name="a1", **change):
    return [b"alert/carm0", msgpack.packb(ALERT | {"id": name, "state": state} | change)]


def accepted_at(t):
    return health(session={"accepted": bool(t), "accepted_t": t})


def health(case=CASE, **more):
    return [b"health/carm0", msgpack.packb({"v": 1, "t": T, "case": case, "recording": "", "alerts": []} | more)]


def moment(seq=12, **change):
    header = FrameHeader(v=1, source="carm0", seq=seq, t_acq=T, rows=SIDE, cols=SIDE, dtype="u2", bits=16, **change)
    counts = np.frombuffer(frame(seq)[2], "<u2").reshape(SIDE, SIDE)
    return Moment(header, counts, OVERLAY)


def event(kind="mark", of=None, alerts=()):
    return Event(kind, CASE, T, of or moment(), tuple(alerts))


def ct(**tags):
    return source_of(ct_series(count=3, **tags), "ct")


def kinds(events):
    return [e.kind for e in events]


def as_bytes(dataset):
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def test_a_moment_is_image_graphics_twin_and_report_of_one_study_as_drafts():
    source = ct()
    made = of_moment(source, event(), "SITE", Mark("wire in place"))
    assert [d.Modality for d in made] == ["XA", "PR", "OT", "SR"]
    assert {d.StudyInstanceUID for d in made} == {source.study_uid}
    assert {d.PatientID for d in made} == {source.first.PatientID}
    assert all(d.SeriesDescription.startswith("DRAFT") for d in made)
    picture, state, twin, report = made
    assert np.array_equal(picture.pixel_array, moment().counts)
    (series,) = state.ReferencedSeriesSequence
    assert series.ReferencedImageSequence[0].ReferencedSOPInstanceUID == picture.SOPInstanceUID
    assert twin.SourceImageSequence[0].ReferencedSOPInstanceUID == picture.SOPInstanceUID
    assert report.VerificationFlag == "UNVERIFIED"
    assert "wire in place" in report.to_json() and "kwire to aorta" in report.to_json()


def test_a_person_who_marks_and_accepts_makes_no_drafts():
    made = of_moment(ct(), event(), "SITE", Mark(accepted_by="Who^Ever"))
    assert not any("DRAFT" in d.SeriesDescription for d in made)
    assert made[-1].VerificationFlag == "VERIFIED"


def test_the_same_moment_made_again_later_is_the_same_bytes_and_is_put_in_once(tmp_path, monkeypatch):
    site = load_site(init_site(tmp_path / "site"))
    source = ct()
    results = Spool(site.folder / "live", outbox := open_outbox(site), Pseudonyms.load(site.key), site.results_to)
    first = of_moment(source, event(), "SITE")
    assert results.keep(first) == 4 and results.forward() == (4, [])
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    again = of_moment(source, event(), "SITE")
    assert [as_bytes(d) for d in again] == [as_bytes(d) for d in first]
    assert results.keep(again) == 4 and results.forward() == (0, [])
    assert outbox.left() == 4 and not list((site.folder / "live").iterdir())


def test_what_was_written_before_a_kill_is_put_in_after_it(tmp_path):
    site = load_site(init_site(tmp_path / "site"))
    outbox, pseudonyms = open_outbox(site), Pseudonyms.load(site.key)
    Spool(site.folder / "live", outbox, pseudonyms, "archive").keep(of_moment(ct(), event(), "SITE"))
    (site.folder / "live" / "x.part").write_bytes(b"cut off")
    assert Spool(site.folder / "live", outbox, pseudonyms, "archive").forward() == (4, [])
    assert outbox.left() == 4 and not list((site.folder / "live").iterdir())


def test_an_overlay_that_draws_nothing_makes_no_presentation_state():
    empty = Moment(moment().header, moment().counts, OVERLAY | {"outlines": [], "instruments": []})
    assert [d.Modality for d in of_moment(ct(), event("mark", empty), "SITE")] == ["XA", "OT", "SR"]


def test_where_the_c_arm_names_its_study_results_go_there_without_the_ct_s_dates_and_numbers():
    study = generate_uid()
    made = of_moment(ct(), event("accept", moment(study=study)), "SITE")
    assert {d.StudyInstanceUID for d in made} == {study}
    assert {d.PatientID for d in made} == {ct().first.PatientID}
    assert not any(d.AccessionNumber or d.StudyDate for d in made)
    with pytest.raises(DicomError, match="is no UID"):
        of_moment(ct(), event("accept", moment(study="Doe, John")), "SITE")


@pytest.mark.parametrize("study", [None, "1.2.840.99.1"])
def test_dciodvfy_finds_no_error_in_what_a_live_case_leaves(tmp_path, study):
    made = of_moment(ct(), event("mark", moment(study=study)), "SITE", Mark("note"))
    made += of_end(ct(), Event("end", CASE, T, alerts=(ALERT,), registration=REGISTRATION), "SITE")
    for k, dataset in enumerate(made):
        write_object(dataset, tmp_path / f"{k}.dcm")
        assert errors_of(tmp_path / f"{k}.dcm") == []


def test_the_end_of_a_case_reports_alerts_and_registration_and_nothing_where_nothing_happened():
    event = Event("end", CASE, T, alerts=(ALERT,), registration=REGISTRATION)
    (report,) = of_end(ct(), event, "SITE")
    assert (
        report.Modality == "SR"
        and "kwire near aorta" in report.to_json()
        and "Accepted registration" in report.to_json()
    )
    assert of_end(ct(), Event("end", CASE, T), "SITE") == []


def recorded(path, messages):
    with path.open("xb") as file:
        writer = RecordingWriter(file, "carm0", CASE)
        for k, parts in enumerate(messages):
            writer.write(T + k, parts)
        writer.finish()
    return path


def test_a_run_is_cut_where_size_or_time_breaks_and_into_parts_of_bounded_size(tmp_path, monkeypatch):
    wide = frame(9, cols=2 * SIDE, rows=SIDE // 2)
    path = recorded(tmp_path / "run.mcap", [health(), frame(1), frame(2), frame(3), wide, frame(4)])
    parts = [(d.get("NumberOfFrames", 1), d.Columns) for d in of_run(ct(), CASE, path, "SITE")]
    assert parts == [(3, SIDE), (1, 2 * SIDE), (1, SIDE)]
    monkeypatch.setattr("fluoronav.pacs.live_results.LIMITS", type("L", (), {"part_bytes": 2 * 2 * SIDE * SIDE}))
    assert [d.get("NumberOfFrames", 1) for d in of_run(ct(), CASE, path, "SITE")] == [2, 1, 1, 1]


def test_a_run_with_two_cases_is_of_nobody_and_not_sent(tmp_path):
    path = recorded(tmp_path / "run.mcap", [health(), frame(1), health("POTHER@00"), frame(2)])
    with pytest.raises(RecordingError, match="another case was loaded"):
        list(of_run(ct(), CASE, path, "SITE"))


def test_frames_and_overlays_meet_in_either_order_and_a_restarted_grabber_s_do_not():
    heard = Heard()
    heard.take(health(), 0)
    heard.take(frame(1), 0)
    assert heard.moment is None
    heard.take(overlay(1), 0)
    assert heard.moment.header.seq == 1
    heard.take(overlay(2), 0)
    heard.take(frame(2), 0)
    assert heard.moment.header.seq == 2
    heard.take(frame(3, t_acq=T), 0)
    heard.take(overlay(3), 0)
    assert heard.moment.header.seq == 2


def show(heard, seq, registration=REGISTRATION):
    heard.take(frame(seq), 0)
    return kinds(heard.take(overlay(seq, registration=registration), 0))


def test_an_acceptance_is_said_once_however_often_its_registration_is_lost_and_again_for_another():
    heard = Heard()
    not_yet = REGISTRATION | {"accepted": False}
    assert kinds(heard.take(health(), 0)) == ["begin"]
    assert show(heard, 1, not_yet) == [] and show(heard, 2) == []
    (accepted,) = heard.take(accepted_at(T + 7), 0)
    assert (accepted.kind, accepted.t, accepted.moment.header.seq) == ("accept", T + 7, 2)
    assert heard.take(accepted_at(None), 0) == [] and show(heard, 3, not_yet) == [] and show(heard, 4, None) == []
    # It is found again at the same place: the same acceptance.
    assert heard.take(accepted_at(T + 7), 0) == [] and show(heard, 5) == []
    assert heard.take(accepted_at(T + 9), 0) != []


def test_a_start_while_a_registration_is_accepted_is_no_other_acceptance():
    heard = Heard((CASE, T + 7))
    heard.take(accepted_at(T + 7), 0)
    assert show(heard, 1) == [] and heard.accepted == (CASE, T + 7)
    # One that was accepted while nobody listened is made now, with the first frame that shows it.
    later = Heard((CASE, T + 6))
    later.take(accepted_at(T + 7), 0)
    assert show(later, 1) == ["accept"] and later.accepted == (CASE, T + 7)
    other_case = Heard(("PQ@00", T + 7))
    other_case.take(accepted_at(T + 7), 0)
    assert show(other_case, 1) == ["accept"]


def test_a_mark_tells_of_the_alerts_that_are_open_and_of_those_since_the_mark_before():
    heard = Heard()
    heard.take(health(), 0)
    for parts in (alert("raised"), alert("cleared"), alert("raised", "a2")):
        heard.take(parts, 0)
    show(heard, 1)

    def told(mark):
        return [(a["id"], a["state"]) for a in mark.alerts]

    first = heard.mark()
    assert told(first) == [("a1", "raised"), ("a1", "cleared"), ("a2", "raised")]
    # The same moment marked again is the same report.
    assert heard.mark(1).alerts == first.alerts
    show(heard, 2)
    assert told(heard.mark()) == [("a2", "raised")]
    heard.take(alert("cleared", "a2"), 0)
    show(heard, 3)
    assert told(heard.mark()) == [("a2", "raised"), ("a2", "cleared")]
    show(heard, 4)
    assert told(heard.mark()) == []
    report = of_moment(ct(), first, "SITE")[-1].to_json()
    assert "kwire near aorta (cleared)" in report and "kwire near aorta (open at this moment)" in report


def test_a_mark_is_of_the_frame_that_the_person_saw_or_of_the_newest_once_that_has_gone():
    heard = Heard()
    assert heard.mark() is None
    heard.take(health(), 0)
    for seq in range(1, 41):
        show(heard, seq)
    assert [heard.mark(seq).moment.header.seq for seq in (38, 39, 1, None)] == [38, 39, 40, 40]
    heard.mark(38)
    for seq in range(41, 90):
        show(heard, seq)
    # A note that follows a mark is of the frame that was marked.
    assert heard.mark(38).moment.header.seq == 38


def test_another_case_ends_the_one_before_and_nothing_of_it_is_left():
    heard = Heard()
    heard.take(health(), 0)
    heard.take([b"alert/carm0", msgpack.packb(ALERT)], 0)
    heard.take(frame(1), 0)
    heard.take(overlay(1), 0)
    ended, begun = heard.take(health("PQ@00"), 0)
    assert (ended.kind, ended.case, begun.kind, begun.case) == ("end", CASE, "begin", "PQ@00")
    assert ended.alerts == (ALERT,) and ended.registration == REGISTRATION and ended.models == OVERLAY["models"]
    assert heard.moment is None
    (last,) = heard.end()
    assert last.alerts == () and last.registration is None


def test_a_pipeline_that_falls_silent_ends_its_case_and_its_recording_once():
    heard = Heard()
    heard.take(health(recording="run.mcap"), 0)
    assert not heard.silence(LIMITS.silence_s - 1)
    events = heard.silence(LIMITS.silence_s + 1)
    assert [(e.kind, e.recording) for e in events] == [("run", "run.mcap"), ("end", "")]
    assert not heard.silence(LIMITS.silence_s + 2)


def test_the_end_of_a_recording_is_heard_and_alerts_from_before_are_taken_from_health():
    heard = Heard()
    heard.take(health(recording="run.mcap", alerts=[ALERT]), 0)
    assert [(e.kind, e.recording) for e in heard.take(health(alerts=[ALERT]), 0)] == [("run", "run.mcap")]
    (ended,) = heard.end()
    assert ended.alerts == (ALERT,)


@pytest.mark.parametrize(
    "parts", [[b"overlay/carm0", b"\xc1"], [b"health/carm0"], [b"alert/carm0", msgpack.packb({"v": 1})],
              [b"overlay/carm0", msgpack.packb({"v": 2})], [b"frame/carm0", b"x", b"y"]]
)  # fmt: skip
def test_what_is_no_message_is_counted_and_the_next_is_taken(parts):
    heard = Heard()
    assert heard.take(parts, 0) == [] and heard.invalid == 1
    assert kinds(heard.take(health(), 0)) == ["begin"]


def test_frames_that_no_overlay_follows_are_let_go():
    heard = Heard()
    heard.take(health(), 0)
    for seq in range(30):
        heard.take(frame(seq), 0)
    assert len(heard._frames) == LIMITS.frames
    assert heard.counted["frames without overlay"] == 30 - LIMITS.frames


@pytest.mark.parametrize("case", ["thoracic-spine@0123456789ab", "PABCDEFGHIJKLMNOP@0123456789ab", "", "../x@00"])
def test_a_case_that_is_not_of_the_store_is_refused(tmp_path, case):
    site = load_site(init_site(tmp_path / "site"))
    database = Database(tmp_path / "node.sqlite")
    with pytest.raises(LiveCaseError, match="not one of the case store"):
        source_of_case(site, database, Identities(database, Pseudonyms.load(site.key)), case)


def test_a_mark_without_a_stream_and_a_mark_without_an_answer_say_so(tmp_path):
    endpoint = f"ipc://{tmp_path}/marks"
    with pytest.raises(MarkError, match="nobody answers"):
        ask(endpoint, Mark(), 0.2)
    context, ended = zmq.Context(), threading.Event()
    marks = Marks(context, endpoint)

    def nothing(mark):
        raise ValueError("no frame with an overlay has come")

    def serve():
        while not ended.is_set():
            marks.serve(nothing)
            ended.wait(0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(MarkError, match="no frame with an overlay"):
        ask(endpoint, Mark("a note"), 10)
    ended.set()
    thread.join()
    marks.close()
    context.term()


def test_marks_of_several_at_once_are_each_answered_when_made_or_when_their_time_is_up(tmp_path):
    endpoint, context, never, later = f"ipc://{tmp_path}/marks", zmq.Context(), Future(), Future()
    marks = Marks(context, endpoint)
    asking = [context.socket(zmq.REQ) for _ in range(3)]
    for k, socket in enumerate(asking):
        socket.connect(endpoint)
        socket.send(msgpack.packb({"v": 1, "note": str(k), "wait_s": 0.01 if k == 0 else 60}))
    done = {"0": never, "1": later, "2": later}
    left = []

    def take(asked):
        left.append(asked.note)
        return moment(), done[asked.note]

    until(lambda: marks.serve(take) or len(left) == 3)
    until(lambda: marks.serve(take) or asking[0].poll(0))
    assert msgpack.unpackb(asking[0].recv())["objects"] == 0 and not asking[1].poll(0)
    later.set_result(4)
    marks.serve(take)
    assert [msgpack.unpackb(socket.recv())["objects"] for socket in asking[1:]] == [4, 4]
    for socket in asking:
        socket.close()
    marks.close()
    context.term()


def test_marks_are_not_taken_from_other_computers(tmp_path):
    file = init_site(tmp_path / "site")
    file.write_text(file.read_text() + "\nlive: {marks: 'tcp://0.0.0.0:5554'}\n")
    with pytest.raises(SiteError, match="open to other computers"):
        load_site(file)


def test_the_wire_s_own_headers_are_read():
    header = FrameHeader(v=1, source="carm0", seq=1, t_acq=T, rows=SIDE, cols=SIDE, dtype="u2", bits=16)
    heard = Heard()
    heard.take(health(), 0)
    heard.take([b"frame/carm0", encode(header), frame(1)[2]], 0)
    heard.take(overlay(1, t_acq=T), 0)
    assert heard.moment.header == header
