"""A node in a process of its own, and what senders do to it."""

import socket
import subprocess
import threading
import time
from io import BytesIO

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
    XRay3DAngiographicImageStorage,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelFind, Verification
from tests.case.scans import enhanced, save
from tests.pacs.conftest import ACCESSION, NAME, PATIENT_ID, ct_series, send, until

from fluoronav.case import load_case


def echoes(port, called="FLUORO_PLAN", calling="STORESCU"):
    ae = AE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return None
    status = association.send_c_echo().Status
    association.release()
    return status


def test_a_ct_that_is_sent_becomes_a_case_that_loads_without_a_name_in_it(node):
    assert set(send(node.port, ct_series())) == {0x0000}
    folder = node.case()
    case = load_case(folder)
    assert case.ct.image.GetSize() == (52, 48, 26)
    (status,) = node.status["cases"]
    assert status["stage"] == "arrived" and status["warnings"] == []
    (series,) = node.series(state="complete")
    assert series["complete_by"] == "released" and not series["flagged"]
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for word in (NAME, "Zimmerfrau", PATIENT_ID, ACCESSION, "Klinikum", "19700203", "20260102"):
                assert word.encode() not in content, path
    # What came is not kept, and nothing says who it was.
    until(lambda: not list((node.site.folder / "inbox").rglob("*.dcm")), what="an empty inbox")
    for path in [p for p in node.file.parent.rglob("*") if p.is_file()]:
        for word in ("Zimmerfrau", PATIENT_ID, ACCESSION):
            assert word.encode() not in path.read_bytes(), path
            assert word not in path.name


def test_storescu_of_another_hand_is_understood(node, tmp_path):
    folder = save(ct_series(), tmp_path / "sent")
    done = subprocess.run(
        ["/usr/bin/storescu", "-aec", "FLUORO_PLAN", "+sd", "127.0.0.1", str(node.port), str(folder)],
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert load_case(node.case()).ct.image.GetSize() == (52, 48, 26)


def test_the_first_try_needs_no_pacs(node, tmp_path):
    folder = save(ct_series(), tmp_path / "ct")
    done = node.command("send", folder, "--to", "node", "--wait", 60, "--site", node.file)
    assert done.returncode == 0, done.stderr
    case = node.case()
    until(lambda: len(list((case / "ct").iterdir())) == 26)
    done = node.command("send", case / "ct", "--wait", 60, "--site", node.file)
    assert done.returncode == 0, done.stderr + node.log.read_text()
    (series,) = node.series(workflow="archive")
    assert series["instances"] == 26
    told = node.command("status", node.file)
    assert told.returncode == 0 and "0 waiting, 0 refused, 52 sent" in told.stdout and "arrived" in told.stdout


@pytest.mark.parametrize(
    ("called", "calling", "counted"),
    [
        ("NOBODY", "STORESCU", "unknown called AE title"),
        ("FLUORO_PLAN", "STRANGER", "unknown calling AE title"),
    ],
)
def test_who_is_not_on_the_list_gets_no_association(node, called, calling, counted):
    assert echoes(node.port) == 0x0000
    assert echoes(node.port, called, calling) is None
    until(lambda: node.status["refused"].get(counted) == 1)


def test_the_same_instance_twice_is_one_and_another_under_its_uid_is_kept_aside(node):
    first = ct_series(count=6)
    assert set(send(node.port, first)) == {0x0000}
    assert set(send(node.port, first)) == {0x0000}
    changed = ct_series(count=6)[0]
    changed.SOPInstanceUID = changed.file_meta.MediaStorageSOPInstanceUID = first[0].SOPInstanceUID
    assert send(node.port, [changed]) == [0xC000]
    (aside,) = node.status["aside"]
    assert "other bytes" in aside["reason"] and (node.site.folder / "aside" / aside["file"]).is_file()
    (series,) = node.series()
    assert series["instances"] == 6


def test_an_aborted_series_waits_for_the_rest_and_is_sent_again_without_doubles(node):
    single = ct_series()
    send(node.port, single[:9] + single[15:20], release=False)
    time.sleep(1.0)
    (series,) = node.series()
    assert series["state"] == "arriving"
    send(node.port, single)
    (series,) = node.series(state="complete")
    assert series["instances"] == 26
    assert len(list((node.case() / "ct").iterdir())) == 26


def test_slices_missing_inside_the_stack_make_it_incomplete_and_the_rest_completes_it(node):
    single = ct_series()
    send(node.port, single[:9] + single[12:])
    (series,) = node.series(state="incomplete")
    assert "3 slices are missing" in series["reason"] and node.status["cases"] == []
    send(node.port, single[9:12])
    node.series(state="complete")
    assert len(list((node.case() / "ct").iterdir())) == 26


def test_one_study_over_two_associations_is_taken_in_whole_whatever_was_complete_between(node):
    single = ct_series()
    send(node.port, single[:13])
    folder = node.case()
    assert len(list((folder / "ct").iterdir())) == 13
    send(node.port, single[13:])
    until(lambda: len(list((folder / "ct").iterdir())) == 26, what="the rest")
    until(lambda: load_case(folder).ct.image.GetSize() == (52, 48, 26))
    assert len(node.status["cases"]) == 1


def test_a_series_is_not_complete_while_another_association_still_brings_it(node):
    single = ct_series()
    ae = AE("STORESCU")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    slow = ae.associate("127.0.0.1", node.port, ae_title="FLUORO_PLAN")
    slow.send_c_store(single[0])
    send(node.port, single[1:13])
    time.sleep(1.0)
    assert node.series()[0]["state"] == "arriving"
    for d in single[13:]:
        slow.send_c_store(d)
    slow.release()
    assert node.series(state="complete")[0]["instances"] == 26


def test_a_series_that_goes_quiet_is_complete_and_flagged(node):
    send(node.port, ct_series(), release=False)
    (series,) = node.series(state="complete")
    assert series["flagged"]
    until(lambda: node.status["cases"])
    assert "quiet" in node.status["cases"][0]["warnings"][0]


@pytest.mark.parametrize("tag", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_an_object_without_an_identifying_uid_is_refused_by_the_name_of_the_tag(node, tag):
    (single,) = ct_series(count=1)
    delattr(single, tag)
    assert send(node.port, [single]) == [0xA900]
    assert node.status["refused"] == {f"object refused: {tag} is absent or empty": 1}
    assert not list((node.site.folder / "arriving").iterdir())


def test_a_dataset_with_another_uid_than_its_request_is_refused(node):
    (single,) = ct_series(count=1)
    encoded = BytesIO()
    single.save_as(encoded, enforce_file_format=True)
    ae = AE("STORESCU")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", node.port, ae_title="FLUORO_PLAN")
    other = dcmread(BytesIO(encoded.getvalue()))
    association.dimse.original = association.dimse.send_msg

    def with_another_uid(primitive, context_id):
        primitive.AffectedSOPInstanceUID = "1.2.3.4"
        return association.dimse.original(primitive, context_id)

    association.dimse.send_msg = with_another_uid
    assert association.send_c_store(other).Status == 0xA900
    association.release()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"PatientID": ""}, "no PatientID"),
        ({"Modality": "MR", "SOPClassUID": MRImageStorage}, "no case is made of MR"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.966, 0.259]}, "tilted"),
    ],
)
def test_what_cannot_be_a_case_is_kept_and_the_status_says_why(node, change, reason):
    single = ct_series(**change)
    for d in single:
        d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID
    assert set(send(node.port, single)) == {0x0000}
    until(lambda: any(reason in s["reason"] for s in node.status["series"]), what=reason)
    assert node.status["cases"] == []
    assert len(list((node.site.folder / "inbox").rglob("*.dcm"))) == 26


def test_slices_without_pixels_and_doubled_slices_are_refused_with_a_reason(node):
    hollow = ct_series()
    for d in hollow:
        del d.PixelData
    send(node.port, hollow)
    doubled = ct_series()
    doubled[5].ImagePositionPatient = doubled[4].ImagePositionPatient
    doubled[6].ImagePositionPatient = doubled[4].ImagePositionPatient
    send(node.port, doubled + [])
    until(lambda: len([s for s in node.status["series"] if s["state"] in ("refused", "incomplete")]) == 2)
    reasons = " ".join(s["reason"] for s in node.status["series"])
    assert "no pixel data" in reasons and ("same position" in reasons or "missing" in reasons)


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [(EnhancedCTImageStorage, "CT"), (XRay3DAngiographicImageStorage, "XA")],
    ids=["enhanced CT", "CBCT"],
)
def test_a_multi_frame_volume_becomes_a_case(node, sop_class, modality):
    whole = enhanced(ct_series(), sop_class=sop_class, modality=modality)
    assert send(node.port, [whole]) == [0x0000]
    folder = node.case()
    assert load_case(folder).ct.image.GetSize() == (52, 48, 26)


def test_a_damaged_image_refuses_its_series_and_a_person_can_have_it_judged_anew(node):
    single = ct_series()
    single[7].PixelData = single[7].PixelData[:500]
    send(node.port, single)
    (series,) = node.series(state="refused")
    assert "decoded" in series["reason"]
    assert "1 series are judged anew" in node.command("retry", node.file).stdout
    until(lambda: node.log.read_text().count("a series is refused") == 2)
    assert node.status["series"][0]["instances"] == 26


def test_a_localizer_in_the_series_is_left_out_and_said(node):
    single = ct_series()
    scout = ct_series(count=1)[0]
    scout.SeriesInstanceUID, scout.StudyInstanceUID = single[0].SeriesInstanceUID, single[0].StudyInstanceUID
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    send(node.port, [scout, *single])
    folder = node.case()
    assert load_case(folder).ct.image.GetSize() == (52, 48, 26)
    assert node.status["cases"][0]["warnings"] == ["1 localizers of the series were left out"]


def test_two_patients_in_one_series_and_two_patients_with_one_id_are_refused(node):
    send(node.port, ct_series())
    node.case()
    send(node.port, ct_series(PatientBirthDate="19551231"))
    until(lambda: any("two patients have one ID" in s["reason"] for s in node.status["series"]))
    mixed = ct_series()
    for d in mixed[13:]:
        d.PatientID = "another"
    send(node.port, mixed)
    until(lambda: any("of 2 patients" in s["reason"] for s in node.status["series"]))
    assert len(node.status["cases"]) == 1


def test_a_second_ct_of_a_patient_is_a_case_of_its_own_and_a_follow_up_goes_to_the_last(node):
    send(node.port, ct_series(), called="FLUORO_POST")
    until(lambda: any("send the planning CT first" in s["reason"] for s in node.status["series"]))
    send(node.port, ct_series())
    first = node.case()
    send(node.port, ct_series())
    until(lambda: len(node.status["cases"]) == 2)
    assert {c["case"] for c in node.status["cases"]} == {first.name, f"{first.name}-2"}
    send(node.port, ct_series(), called="FLUORO_POST")
    (ct,) = until(lambda: list((first.parent / f"{first.name}-2").glob("outcome/*/ct")))
    assert len(list(ct.iterdir())) == 26


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian], ids=lambda s: s.name)
def test_rare_transfer_syntaxes_are_stored_as_they_come(node, syntax, tmp_path):
    (single,) = ct_series(count=1)
    single.file_meta.TransferSyntaxUID = syntax
    if syntax is ExplicitVRBigEndian:
        single.PixelData = bytes(reversed(single.PixelData))
    path = tmp_path / "rare.dcm"
    dcmwrite(path, single, enforce_file_format=True)
    assert send(node.port, [dcmread(path)]) == [0x0000]
    (kept,) = (node.site.folder / "inbox").rglob("*.dcm")
    assert dcmread(kept).file_meta.TransferSyntaxUID == syntax
    assert dcmread(kept).PixelData == dcmread(path).PixelData


def test_compressed_pixels_are_accepted_without_being_decoded_and_an_unknown_syntax_is_not(node):
    ae = AE("STORESCU")
    ae.add_requested_context(CTImageStorage, JPEGLosslessSV1)
    ae.add_requested_context(MRImageStorage, "1.2.3.4.5")
    association = ae.associate("127.0.0.1", node.port, ae_title="FLUORO_PLAN")
    assert [c.abstract_syntax for c in association.accepted_contexts] == [CTImageStorage]
    association.release()


def test_below_the_free_disk_nothing_is_taken_and_the_sender_is_told(make_node):
    def nearly_full(content):
        content["node"]["least_free_mb"] = 10**9

    node = make_node(nearly_full)
    assert send(node.port, ct_series(count=2)) == [0xA700, 0xA700]
    assert node.status["refused"] == {"out of resources": 2} and node.status["series"] == []
    assert not [p for p in node.site.folder.rglob("*.dcm")]


def test_http_rubbish_and_silent_connections_hold_nobody_up(make_node):
    def short(content):
        content["node"] |= {"acse_timeout_s": 2, "network_timeout_s": 3, "most_associations": 4}

    node = make_node(short)
    silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(40)]
    half = socket.create_connection(("127.0.0.1", node.port))
    half.sendall(b"\x01\x00\x00\x00\x01")  # the first five bytes of a request
    for rubbish in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 4096, b"\xff" * 70000):
        with socket.create_connection(("127.0.0.1", node.port)) as s:
            s.sendall(rubbish)
    assert echoes(node.port) == 0x0000
    assert set(send(node.port, ct_series())) == {0x0000}
    node.case()
    for s in [*silent, half]:
        s.settimeout(15)
        # Closed from the other side, maybe after an A-ABORT.
        while s.recv(100):
            pass
        s.close()
    assert node.process.poll() is None and echoes(node.port) == 0x0000


def test_associations_above_the_limit_are_rejected_and_those_below_go_on(make_node):
    node = make_node(lambda content: content["node"].update(most_associations=2))
    ae = AE("STORESCU")
    ae.add_requested_context(Verification)
    held = [ae.associate("127.0.0.1", node.port, ae_title="FLUORO_PLAN") for _ in range(2)]
    assert all(a.is_established for a in held)
    assert echoes(node.port) is None
    held.pop().release()
    until(lambda: echoes(node.port) == 0x0000)
    held.pop().release()


def test_what_was_sent_is_found_by_its_uid_and_nothing_can_be_browsed(node):
    single = ct_series(count=3)
    send(node.port, single, called="FLUORO_ARCHIVE")
    ae = AE("FLUORONAV")
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    association = ae.associate("127.0.0.1", node.port, ae_title="FLUORO_ARCHIVE")

    def found(level, **keys):
        from pydicom import Dataset

        query = Dataset()
        query.QueryRetrieveLevel = level
        for k, v in keys.items():
            setattr(query, k, v)
        answers = association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
        return [identifier for status, identifier in answers if status.Status == 0xFF00]

    study, series = single[0].StudyInstanceUID, single[0].SeriesInstanceUID
    assert found("IMAGE", SOPInstanceUID=single[1].SOPInstanceUID)[0].SOPInstanceUID == single[1].SOPInstanceUID
    assert found("SERIES", StudyInstanceUID=study, SeriesInstanceUID=series)[0].NumberOfSeriesRelatedInstances == 3
    assert found("STUDY", StudyInstanceUID=study)[0].PatientID == PATIENT_ID
    assert found("IMAGE", SOPInstanceUID=generate_uid()) == []
    assert found("STUDY", PatientID="*") == [] and found("STUDY", StudyInstanceUID="") == []
    association.release()


def test_eight_senders_at_once_lose_and_double_nothing(node):
    series = [ct_series() for _ in range(8)]
    threads = [threading.Thread(target=send, args=(node.port, s)) for s in series]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    until(lambda: len(node.status["cases"]) == 8, 90)
    assert sorted(s["instances"] for s in node.status["series"]) == [26] * 8


def test_no_log_and_no_status_names_a_patient(node):
    single = ct_series()
    send(node.port, single)
    bad = ct_series(count=1)[0]
    del bad.SeriesInstanceUID
    send(node.port, [bad])
    send(node.port, ct_series(PatientID=""))
    node.case()
    text = node.log.read_text() + node.command("status", node.file, "--json").stdout
    text += node.command("status", node.file).stdout
    for word in (NAME, "Zimmerfrau", PATIENT_ID, ACCESSION, single[0].SeriesInstanceUID, single[0].StudyInstanceUID):
        assert str(word) not in text
