import datetime
import json
import shutil
import socket
import threading
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import slicerio
import trimesh
import yaml
from tests.case.scans import label_map, save
from tests.dicom.objects.scene import PERSON, ct, errors_of
from tests.planning.planned_case import LEFT, MADE, RIGHT, planned_case, screw

from fluoronav.case.hashes import volume_hash
from fluoronav.case.volume import read_volume
from fluoronav.cli import main
from fluoronav.dicom.objects import Approval, Producer, Provenance
from fluoronav.openigtlink.content import unpack_polydata, unpack_transform
from fluoronav.openigtlink.plan_messages import plan_messages, send
from fluoronav.openigtlink.protocol import MessageReader
from fluoronav.planning.export.guide import SETTINGS, drill_guide
from fluoronav.planning.export.pacs_objects import write_dicom
from fluoronav.planning.export.slicer import markups_of, write_slicer
from fluoronav.planning.export.solids import instrument_parts, structure_parts
from fluoronav.planning.meshes.of_mask import mask_of
from fluoronav.planning.meshes.parts import write_stl
from fluoronav.planning.meshes.solid import MeshError, surface_of
from fluoronav.planning.plan.file import write_plan
from fluoronav.planning.plan.planned import read_planned
from fluoronav.planning.plan.schema import Measured, Plan
from fluoronav.planning.segmentation.imported.surface import read_surface


def silent(_):
    return None


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    number = Measured(id="m", origin="proposed", name="height", value=21.5, unit="mm", method="rays",
                      points_ct=((1.0, 2.0, 3.0), (1.0, 2.0, 24.5)))  # fmt: skip
    return read_planned(planned_case(tmp_path_factory.mktemp("case"), LEFT, RIGHT, number))


def test_markups_follow_slicers_schema_and_say_that_they_are_lps(planned):
    made = markups_of(planned)
    assert set(made) == {"T8_left", "T8_right", "measurements"}
    for content in made.values():
        assert content["@schema"].endswith("/markups-schema-v1.0.0.json#")
        (markup,) = content["markups"]
        assert markup["type"] in ("Fiducial", "Line") and markup["coordinateSystem"] == "LPS"
        for point in markup["controlPoints"]:
            assert set(point) <= {"id", "label", "position", "selected", "locked", "visibility", "positionStatus"}
            assert len(point["position"]) == 3 and all(type(x) is float for x in point["position"])
            assert point["positionStatus"] == "defined" and type(point["id"]) is str
    line = made["T8_left"]["markups"][0]
    assert line["type"] == "Line" and [p["position"] for p in line["controlPoints"]] == [
        list(LEFT.entry_ct),
        list(LEFT.tip_ct),
    ]
    json.dumps(made, allow_nan=False)


def test_the_scene_of_slicer_names_its_files_with_their_kind_frame_and_colour(planned, tmp_path):
    parts = instrument_parts(planned)
    made = write_slicer(planned, parts, tmp_path, silent)
    root = ElementTree.parse(tmp_path / made["scene"]).getroot()
    assert root.tag == "MRML"
    nodes = {n.get("id"): n for n in root}
    assert len(nodes) == len(root)
    shown = {}
    for node in root:
        if references := node.get("references"):
            display, storage = (nodes[r.split(":")[1]] for r in references.rstrip(";").split(";"))
            # Slicer makes a node of the class that its tag names.
            assert node.get("id").startswith(f"vtkMRML{node.tag}Node")
            assert display.tag.endswith("Display") and display.get("visibility") == "true"
            shown[storage.get("fileName")] = (node.tag, display.get("color"), storage.get("coordinateSystem"))
    written = {f.name for f in tmp_path.iterdir()} - {made["scene"]}
    assert shown.keys() == written == {made["structures"], *made["markups"], *made["models"]}
    assert shown["structures.seg.nrrd"][0] == "Segmentation"
    assert shown["T8_left.mrk.json"][0] == "MarkupsLine" and shown["measurements.mrk.json"][0] == "MarkupsFiducial"
    for file in made["models"]:
        assert shown[file] == ("Model", "0.5608 0.6392 0.6902", "LPS")  # as it is the colour of screws


def test_slicers_own_reader_finds_the_structures_where_they_are_with_name_colour_and_state(planned, tmp_path):
    made = write_slicer(planned, [], tmp_path, silent)
    assert volume_hash(sitk.ReadImage(str(tmp_path / made["structures"]))) == planned.plan.labels_hash
    read = slicerio.read_segmentation(str(tmp_path / made["structures"]))
    t8 = slicerio.segment_from_name(read, "vertebrae_T8")
    assert t8["labelValue"] == 36 and np.allclose(np.array(t8["color"]) * 255, (244, 208, 63), atol=0.01)
    assert t8["status"] == "completed" and len(read["segments"]) == len(planned.structures)
    image = planned.label_image
    index = np.argwhere(read["voxels"] == 36)[0]  # x, y, z
    there = image.TransformIndexToPhysicalPoint([int(i) for i in index])
    assert np.allclose((read["ijkToLPS"] @ [*index, 1])[:3], there, atol=1e-3)
    assert image[tuple(int(i) for i in index)] == 36


def test_a_rejected_structure_is_not_in_slicers_segmentation(planned, tmp_path):
    rejected = replace(planned, states=planned.states | {"vertebrae_T8": "rejected"})
    read = slicerio.read_segmentation(str(tmp_path / write_slicer(rejected, [], tmp_path, silent)["structures"]))
    assert "vertebrae_T8" not in slicerio.segment_names(read) and not (read["voxels"] == 36).any()


@pytest.mark.parametrize("frame", ["lps", "ras"])
def test_a_surface_says_its_frame_as_slicer_and_our_own_import_read_it(planned, tmp_path, frame):
    """Regression: the header named the frame in words of its own, so that RAS was taken for LPS."""
    (part,) = [p for p in instrument_parts(planned) if "left" in p.name]
    (path,) = write_stl([part], tmp_path, frame)
    data = path.read_bytes()
    assert f"SPACE={frame.upper()}".encode() in data[:80] and not data.startswith(b"solid")
    corners = np.frombuffer(data[84:], np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("_", "<u2")]))
    assert len(corners) == int.from_bytes(data[80:84], "little")
    a, b, c = np.moveaxis(corners["corners"].astype(float), 1, 0)
    assert np.einsum("ij,ij", a, np.cross(b, c)) / 6 == pytest.approx(part.mesh.volume_mm3, rel=1e-4)
    points, _, notes = read_surface(path, None)
    assert np.allclose(np.mean(points, 0), np.mean(part.mesh.points, 0), atol=0.5) and not notes


def test_openigtlink_messages_are_ras_and_arrive_whole(planned):
    parts = [*structure_parts(planned, ["T8"], silent), *instrument_parts(planned)]
    messages = plan_messages(planned, parts)
    server = socket.create_server(("127.0.0.1", 0))
    got = bytearray()

    def receive():
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(65536):
                got.extend(data)

    thread = threading.Thread(target=receive)
    thread.start()
    assert send(messages, *server.getsockname()) > 0
    thread.join(20)
    server.close()
    reader = MessageReader(dict.fromkeys(("STRING", "POLYDATA", "TRANSFORM", "POINT"), 1 << 26))
    read = reader.feed(bytes(got))
    assert [m.header.kind for m in read] == [
        "STRING",
        "POLYDATA",
        "POLYDATA",
        "POLYDATA",
        "TRANSFORM",
        "TRANSFORM",
        "POINT",
    ]
    assert not reader.counts
    T = unpack_transform(read[4].content)
    entry, tip = np.array(LEFT.entry_ct) * [-1, -1, 1], np.array(LEFT.tip_ct) * [-1, -1, 1]
    assert np.allclose(T[:3, 3], tip, atol=1e-4) and np.linalg.det(T[:3, :3]) == pytest.approx(1, abs=1e-5)
    assert np.allclose(T[:3, 2], (tip - entry) / np.linalg.norm(tip - entry), atol=1e-5)
    points, triangles = unpack_polydata(read[1].content)
    surface = trimesh.Trimesh(points, triangles)
    assert surface.volume == pytest.approx(parts[0].mesh.volume_mm3, rel=1e-3)
    assert len(read[-1].content) == 4 * 136


def dicom_case(folder, state):
    """A case whose CT is DICOM."""
    save(ct().datasets if hasattr(ct(), "datasets") else ct(), folder / "ct")
    sitk.WriteImage(label_map(), str(folder / "labels.nrrd"))
    image, labels = read_volume(folder / "ct"), read_volume(folder / "labels.nrrd")
    middle = np.mean(image.corners_ct(), axis=0)
    content = {
        "name": "d", "ct": "ct", "labels": "labels.nrrd",
        "structures": [{"name": "vertebrae_T8", "label": 1}, {"name": "spinal_cord", "label": 2}],
        "prior": {"isocentre_ct": middle.tolist(), "source_to_isocentre_mm": 620},
    }  # fmt: skip
    (folder / "case.yaml").write_text(yaml.safe_dump(content))
    hashes = {"ct_hash": volume_hash(image.image), "labels_hash": volume_hash(labels.image)}
    item = screw("T8_left", "left", tuple(middle.tolist()), tuple((middle + [0, -30, 0]).tolist()))
    plan = Plan(case="d", revision=1, state=state, approved_by="Weiss^Eva", made=MADE, items=(item,), **hashes)
    write_plan(plan, folder / "plan.yaml")
    return read_planned(folder)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dicom3tools")
@pytest.mark.parametrize("state", ["draft", "approved"])
def test_dicom_objects_are_valid_of_the_study_and_say_their_state(tmp_path, state):
    planned = dicom_case(tmp_path, state)
    made = datetime.datetime(2026, 1, 5, 10)
    approval = Approval("Weiss^Eva", "Hospital", made) if state == "approved" else None
    parts = structure_parts(planned, ["vertebrae_T8"], silent)
    out = tmp_path / "out"
    write_dicom(planned, parts, out, Provenance(Producer(), made, approval), None, silent)
    files = sorted(out.glob("*.dcm"))
    assert [f.name for f in files] == ["plan.dcm", "segmentation.dcm", "vertebrae_T8.stl.dcm"]
    for file in files:
        assert not errors_of(file), file.name
        dataset = pydicom.dcmread(file)
        assert str(dataset.PatientID) == PERSON["PatientID"]
        assert dataset.SeriesDescription.startswith("DRAFT") == (state == "draft")
    # The segmentation loads again, with the voxels of each label.
    seg = pydicom.dcmread(out / "segmentation.dcm")
    voxels = sitk.GetArrayFromImage(planned.label_image)
    counts = {int(s.SegmentNumber): 0 for s in seg.SegmentSequence}
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        counts[int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)] += int(frame.sum())
    assert counts == {1: int((voxels == 1).sum()), 2: int((voxels == 2).sum())}


def test_a_guide_is_closed_lies_off_the_bone_and_holds_both_bores(planned):
    s = planned.structure("T8")
    made = drill_guide(mask_of(planned.label_image, s.label, s.name), [LEFT, RIGHT], "T8")
    assert surface_of(made.body).is_watertight and len(made.body.decompose()) == 1
    assert made.report["in_bone_mm3"] < 1 and made.report["thinner_share"] <= SETTINGS.thin_share
    assert made.body.genus() >= 2
    for item in (LEFT, RIGHT):
        entry, axis = np.array(item.entry_ct), np.subtract(item.tip_ct, item.entry_ct)
        on_axis = entry - 10 * axis / np.linalg.norm(axis)
        mesh = surface_of(made.body)
        assert np.linalg.norm(mesh.points - on_axis, axis=1).min() > SETTINGS.drill_mm / 2


def test_a_guide_without_screws_or_beside_the_bone_is_refused(planned):
    s = planned.structure("T8")
    mask = mask_of(planned.label_image, s.label, s.name)
    with pytest.raises(MeshError, match="no screw at this level"):
        drill_guide(mask, [], "T8")
    off = screw("x", "left", (60.0, 109.8, -158.0), (51.0, 75.1, -158.0))
    with pytest.raises(MeshError, match="outside the bone"):
        drill_guide(mask, [off], "T8")


def test_the_frame_of_a_surface_must_be_said(planned, tmp_path, capsys):
    folder = str(planned.path.parent)
    assert main(["plan", "export", folder, "--to", "stl", "--out", str(tmp_path / "o")]) != 0
    assert "--frame lps or --frame ras" in capsys.readouterr().err
    args = [
        "plan",
        "export",
        folder,
        "--to",
        "stl",
        "--frame",
        "ras",
        "--structure",
        "T8",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main([*args, "--json", str(tmp_path / "j.json")]) in (0, None)
    said = json.loads((tmp_path / "j.json").read_text())
    assert said["frame"] == "ras" and all(p["watertight"] for p in said["parts"])
    assert abs(said["parts"][0]["volume_error"]) < 0.005
