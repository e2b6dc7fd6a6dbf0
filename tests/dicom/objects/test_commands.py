"""`fluoronav dicom ...`: from a case and a recording to files that other programs read."""

import json

import msgpack
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import yaml
from tests.case.scans import label_map, save
from tests.dicom.objects.scene import ALERTS, COUNTS, OVERLAY, REGISTRATION, T, ct, dumped, errors_of

from fluoronav.cli import main
from fluoronav.recording.file import RecordingWriter

SEQS = (10, 11, 12, 13)
ACCEPT = ["--accepted-by", "Weiss^Eva", "--organization", "Hospital"]


def write_recording(path, **header):
    with path.open("wb") as file:
        writer = RecordingWriter(file, "carm0", "spine")
        for k, seq in enumerate(SEQS):
            frame = {
                "v": 1, "source": "carm0", "seq": seq, "t_acq": T + k * 33_000_000, "rows": COUNTS.shape[1],
                "cols": COUNTS.shape[2], "dtype": "u2", "bits": 12, "pixel_mm": [0.3, 0.3], "sdd_mm": 1000.0,
                "sid_mm": 620.0, "angles": {"orbital": 10.0 + k, "angular": -5.0}, "kv": 70.0, **header,
            }  # fmt: skip
            writer.write(T, [b"frame/carm0", msgpack.packb(frame), COUNTS[k].tobytes()])
            writer.write(T, [b"frame/carm0", b"rubbish"])
            overlay = OVERLAY | {"seq": seq, "registration": REGISTRATION | {"accepted": seq == 12}}
            writer.write(T, [b"overlay/carm0", msgpack.packb(overlay)])
        for alert in ALERTS:
            writer.write(T, [b"alert/carm0", msgpack.packb(alert)])
        writer.finish()
    return path


@pytest.fixture
def folder(tmp_path):
    """A case whose CT is a DICOM series, and a recorded run."""
    case = {
        "name": "spine", "ct": "ct", "labels": "labels.nrrd",
        "structures": [
            {"name": "vertebrae_T8", "label": 1, "color": "#f4d03f"},
            {"name": "spinal_cord", "label": 2, "color": "#58d68d"},
        ],
        "plan": [{"name": "T8_left", "entry_ct": [0, 0, 50], "target_ct": [3, 4, 50]}],
        "prior": {"isocentre_ct": [5, -6, 60], "source_to_isocentre_mm": 620},
    }  # fmt: skip
    save(ct(), tmp_path / "ct")
    sitk.WriteImage(label_map(), str(tmp_path / "labels.nrrd"))
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
    write_recording(tmp_path / "run.mcap")
    return tmp_path


def run(folder, *words):
    """Runs a verb with --out and --json; returns the dataset and the JSON, after the validator has seen the file."""
    out = folder / "out" / f"{words[0]}.dcm"
    words = [str(folder / w) if (folder / str(w)).exists() else str(w) for w in words]
    assert main(["dicom", *words, "--out", str(out), "--json", str(folder / "out.json")]) == 0
    dataset, written = pydicom.dcmread(out), json.loads((folder / "out.json").read_text())
    assert written["file"] == str(out) and written["sop_instance_uid"] == dataset.SOPInstanceUID
    assert written["draft"] == ("--accepted-by" not in words)
    assert dataset.PatientID == "P1" and dataset.StudyInstanceUID == "1.2.3.4"
    if "--labelmap" not in words:
        assert errors_of(out) == []
    return dataset, written


@pytest.mark.parametrize("more", [(), ("--labelmap",), ("--structure", "spinal_cord"), ("--source", "ct", *ACCEPT)])
def test_seg(folder, more):
    dataset, written = run(folder, "seg", ".", *more)
    names = ["spinal_cord"] if "--structure" in more else ["vertebrae_T8", "spinal_cord"]
    assert list(written["segments"]) == names
    assert [s.SegmentLabel for s in dataset.SegmentSequence if s.SegmentNumber] == names


def test_seg_of_labels_on_another_grid_is_resampled_and_says_so(folder, capsys):
    fine = sitk.Resample(
        label_map(), [104, 96, 52], sitk.Transform(), sitk.sitkNearestNeighbor, (-20, -30, 40), (0.5, 0.5, 1)
    )
    sitk.WriteImage(fine, str(folder / "labels.nrrd"))
    dataset, _ = run(folder, "seg", ".")
    assert "it is resampled to it (nearest neighbour)" in capsys.readouterr().err
    assert int(dataset.pixel_array.sum()) == int((sitk.GetArrayFromImage(label_map()) > 0).sum())


def test_sr_of_case_segmentation_and_run(folder):
    run(folder, "seg", ".")
    _, written = run(folder, "xa", "run.mcap", "--source", "ct/0000.dcm")
    dataset, written = run(
        folder, "sr", ".", "--segmentation", "out/seg.dcm", "--recording", "run.mcap", "--image", "out/xa.dcm"
    )
    assert written["findings"][:3] == ["vertebrae_T8", "spinal_cord", "T8_left"]
    text = dumped(folder / "out" / "sr.dcm")
    voxels = int((sitk.GetArrayFromImage(label_map()) == 1).sum())
    assert f'"Volume")="{voxels * 2 / 1000:g}" (mL' in text
    assert '"Length")="5.0" (mm' in text and "2.3 mm from the aorta" in text
    assert [e.ManufacturerModelName for e in dataset.ContributingEquipmentSequence] == ["fluoronav", "instruments"]


def test_no_identifier_is_logged(folder, caplog):
    with caplog.at_level("INFO"):
        run(folder, "seg", ".")
    assert [r.getMessage() for r in caplog.records if "1.2.3.4" in r.getMessage() or "P1" in r.getMessage()] == []


def test_stl_and_pdf(folder):
    dataset, written = run(folder, "stl", ".", "--structure", "vertebrae_T8")
    points = np.frombuffer(
        dataset.EncapsulatedDocument[84:], np.dtype([("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")])
    )
    assert len(points) == written["triangles"] > 100
    low, high = points["c"].reshape(-1, 3).min(0), points["c"].reshape(-1, 3).max(0)
    np.testing.assert_allclose([low, high], [[-8, -20, 50], [9, -11, 62]], atol=1.6)
    (folder / "a.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    dataset, _ = run(folder, "pdf", "a.pdf", "--title", "Briefing", "--source", "ct/0000.dcm")
    assert dataset.DocumentTitle == "DRAFT Briefing"


def test_a_recorded_run_its_graphics_their_twin_the_pose_and_the_marks(folder):
    dataset, written = run(folder, "xa", "run.mcap", "--first", 11, "--source", "ct/0000.dcm")
    np.testing.assert_array_equal(dataset.pixel_array, COUNTS[1:])
    assert written["frames"] == [{"frame": 1, "seq": 11}, {"frame": 2, "seq": 12}, {"frame": 3, "seq": 13}]
    assert (float(dataset.PositionerPrimaryAngle), float(dataset.PositionerSecondaryAngle)) == (11, -5)
    # The frame is found by its pixels.
    dataset, written = run(folder, "gsps", "run.mcap", "--seq", 12, "--source", "out/xa.dcm")
    assert (written["frame"], written["seq"]) == (2, 12)
    dataset, written = run(folder, "sc", "out/gsps.dcm", "--source", "out/xa.dcm")
    assert written["frame"] == 2 and dataset.pixel_array.shape == (*COUNTS.shape[1:], 3)
    dataset, written = run(folder, "reg", "run.mcap", "--source", "ct", "--image", "out/xa.dcm", *ACCEPT)
    assert (written["seq"], written["frame"]) == (12, 2)
    dataset, _ = run(folder, "ko", "--source", "out/xa.dcm", "--frame", 2, "--frame", 3, "--note", "Wire")
    assert list(dataset.ContentSequence[-1].ReferencedSOPSequence[0].ReferencedFrameNumber) == [2, 3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("seg", ".", "--structure", "aorta"), "has no structure 'aorta'; it has spinal_cord, vertebrae_T8"),
        (("seg", "embedded"), "is no DICOM; name the series that it was made of with --source"),
        (("xa", "run.mcap", "--first", "90", "--source", "ct/0000.dcm"), "has no frame between"),
        (("gsps", "run.mcap", "--seq", "11", "--source", "ct/0000.dcm"), "graphics would not lie where they belong"),
        (("gsps", "run.mcap", "--seq", "99", "--source", "ct/0000.dcm"), "has no overlay of frame 99"),
        (("reg", "run.mcap", "--source", "ct", "--image", "ct/0000.dcm", "--seq", "11"), "11 has not a registration"),
        (("pdf", "case.yaml", "--title", "a", "--source", "ct/0000.dcm"), "no whole PDF"),
        (("ko", "--source", "ct", "--frame", "2"), "holds 26 images"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_in_one_line_and_nothing_is_left(folder, capsys, words, said):
    words = [str(folder / w) if (folder / w).exists() else w for w in words]
    assert main(["dicom", *words, "--out", str(folder / "no.dcm")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("fluoronav dicom: ") and said in error
    assert not (folder / "no.dcm").exists()


def test_graphics_of_another_image_or_study_are_refused(folder, capsys):
    run(folder, "xa", "run.mcap", "--source", "ct/0000.dcm")
    for header, said in (({"instance": "1.2.9"}, "SOPInstanceUID differs"), ({"study": "1.2.9"}, "another study")):
        write_recording(folder / "other.mcap", **header)
        words = ["gsps", str(folder / "other.mcap"), "--seq", "11", "--source", str(folder / "out/xa.dcm")]
        assert main(["dicom", *words, "--out", str(folder / "no.dcm")]) == 1
        assert said in capsys.readouterr().err
