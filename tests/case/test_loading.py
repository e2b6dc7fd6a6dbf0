"""Cases: the embedded one, and refusals by key."""

import hashlib

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from fluoronav.case import CaseError, NoGo, load_case
from fluoronav.case.distance import distance_field
from fluoronav.geometry import is_rigid
from fluoronav.imaging.registration.model import object_grid
from fluoronav.paths import embedded_case

GOOD = {
    "name": "test",
    "ct": "ct.nrrd",
    "labels": "labels.nrrd",
    "structures": [{"name": "bone", "label": 1, "caution_mm": 3, "danger_mm": 1}],
    "plan": [{"name": "a", "entry_ct": [0, 0, 0], "target_ct": [0, 10, 0]}],
    "prior": {"isocentre_ct": [5, 5, 5], "source_to_isocentre_mm": 600},
}


@pytest.fixture
def folder(tmp_path):
    """Air, soft tissue in it, and a cube of bone in that."""
    ct = np.full((48, 48, 48), -1000, np.int16)
    ct[:40, :40, :40] = 0
    ct[4:8, 4:8, 4:8] = 900
    sitk.WriteImage(sitk.GetImageFromArray(ct), str(tmp_path / "ct.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray((ct > 0).astype(np.uint8)), str(tmp_path / "labels.nrrd"))
    return tmp_path


TOOL = {"id": "drill", "kind": "drill", "diameter_mm": 2, "length_mm": 100}
NO_GO = {"name": "plexus", "caution_mm": 5, "danger_mm": 2, "sphere": {"centre_ct": [0, 0, 0], "radius_mm": 4}}


def load(folder, **change):
    (folder / "case.yaml").write_text(yaml.safe_dump({k: v for k, v in (GOOD | change).items() if v is not ...}))
    return load_case(folder, cache=folder)


def test_a_case_is_loaded_from_its_folder(folder):
    case = load(folder)
    assert case.id.startswith("test@")
    assert case.structures[0].danger_mm == 1
    np.testing.assert_array_equal(case.target_ct, [0, 10, 0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red"}, "colour: unknown key"),
        ({"prior": GOOD["prior"] | {"tilt": 3}}, "prior.tilt: unknown key"),
        ({"prior": ...}, "prior"),
        ({"ct": "missing.nrrd"}, "missing.nrrd: no such file"),
        ({"structures": [{"name": "bone", "label": 7}]}, "label 7 is not in labels.nrrd"),
        ({"structures": [{"name": "bone", "label": 1, "caution_mm": 1, "danger_mm": 3}]}, "caution_mm must be larger"),
        ({"structures": GOOD["structures"] * 2}, "'bone' is there twice"),
        ({"structures": [*GOOD["structures"], {"name": "cord", "label": 1}]}, "structures: label: '1' is there twice"),
        ({"labels": ...}, "structures need a label map"),
        ({"plan": [{"name": "a", "entry_ct": [0, 0, 0], "target_ct": [0, 0, 0]}]}, "at least 1 mm apart"),
        ({"plan": [{"name": "a", "entry_ct": [0, 0, float("nan")], "target_ct": [0, 9, 0]}]}, "plan.0.entry_ct"),
        ({"tracker": {"reference": "m", "T_ct_reference": np.diag([1.0, 1, -1, 1]).tolist()}}, "rigid, right-handed"),
        ({"rigid": {"structures": ["skull"]}}, "'skull' is not one of the structures"),
        ({"objects": [{"name": "L1", "structures": ["skull"]}]}, "objects.structures: 'skull' is not one of"),
        ({"objects": [{"name": "L1"}]}, "give either `structures` or `volume`"),
        ({"objects": [{"name": "L1", "structures": ["bone"], "volume": "a.nrrd"}]}, "give either"),
        ({"objects": [{"name": "L1", "structures": ["bone"]}] * 2}, "'L1' is there twice"),
        ({"objects": [{"name": "L1", "volume": "away.nrrd"}]}, "away.nrrd: no such file"),
        ({"tools": [TOOL | {"length_mm": 1}]}, "length_mm 1 must be larger than diameter_mm 2"),
        ({"tools": [TOOL | {"length_mm": -5}]}, "tools.0.length_mm"),
        ({"tools": [TOOL | {"axis": [0, 0, 0]}]}, "axis must be a unit vector"),
        ({"tools": [TOOL | {"tip_mm": [0, 0, 9000]}]}, "more than 1 m from the marker"),
        ({"tools": [TOOL | {"profile": [[0, 0], [50, 1]]}]}, "profile ends at 50 mm, but length_mm is 100"),
        ({"tools": [TOOL | {"profile": [[0, 0], [60, 1], [60, 1], [100, 1]]}]}, "go up in its first column"),
        ({"tools": [TOOL | {"profile": [[0, 0], [100, -1]]}]}, "a radius below 0"),
        ({"tools": [TOOL | {"profile": [[0, 4], [100, 4]]}]}, "none fits diameter_mm"),
        ({"tools": [{"id": "a", "file": "away.yaml"}]}, "away.yaml: cannot be read"),
        ({"no_go": [NO_GO | {"danger_mm": 9}]}, "caution_mm must be larger"),
        ({"no_go": [{k: v for k, v in NO_GO.items() if k != "sphere"}]}, "give one of `sphere`"),
        ({"no_go": [NO_GO | {"name": "bone"}]}, "structures and no_go: 'bone' is there twice"),
        ({"no_go": [NO_GO | {"sphere": {"centre_ct": [0, 0, 0], "radius_mm": -1}}]}, "no_go.0.sphere.radius_mm"),
    ],
)
def test_a_wrong_case_file_is_refused_by_key(folder, change, said):
    with pytest.raises(CaseError) as caught:
        load(folder, **change)
    assert said in str(caught.value)


def test_a_key_that_is_there_twice_is_refused_with_its_line(folder):
    load(folder)
    text = (folder / "case.yaml").read_text()
    (folder / "case.yaml").write_text(text + "ct: other.nrrd\n")
    with pytest.raises(CaseError, match="the key 'ct' is there twice.*line 1"):
        load_case(folder, cache=folder)


def test_a_tool_file_gives_the_geometry_and_the_case_the_id(folder):
    profile = [[0, 0.1], [3, 1.0], [60, 1.0], [60.5, 3.0], [100, 3.0]]
    geometry = {"kind": "drill", "diameter_mm": 2.0, "length_mm": 100, "profile": profile, "tip_mm": [1, 2, 150]}
    (folder / "drill.yaml").write_text(yaml.safe_dump(geometry))
    case = load(folder, tools=[{"id": "left drill", "file": "drill.yaml", "axis": [0, 0.6, 0.8]}])
    (tool,) = case.tools
    assert tool.id == "left drill" and tool.kind == "drill"
    np.testing.assert_allclose(tool.radii_mm(np.array([0.0, 1.55, 30.0, 80.0])), [0.1, 0.565, 1.0, 3.0], atol=1e-9)
    T = tool.T_tool_tip()
    np.testing.assert_allclose(T[:3, 3], [1, 2, 150])
    np.testing.assert_allclose(T[:3, 2], [0, 0.6, 0.8])
    assert is_rigid(T)
    (folder / "drill.yaml").write_text(yaml.safe_dump(geometry | {"diameter_mm": 500}))
    with pytest.raises(CaseError, match=r"drill\.yaml: diameter_mm"):
        load(folder, tools=[{"id": "left drill", "file": "drill.yaml"}])


@pytest.mark.parametrize(
    ("shape", "points", "distances"),
    [
        ({"sphere": {"centre_ct": [1, 0, 0], "radius_mm": 2}}, [[1, 0, 0], [5, 0, 0], [1, 2, 0]], [-2, 2, 0]),
        (
            {"capsule": {"from_ct": [0, 0, 0], "to_ct": [10, 0, 0], "radius_mm": 1}},
            [[5, 4, 0], [13, 4, 0], [5, 0, 0]],
            [3, 4, -1],
        ),
        (
            {"box": {"low_ct": [0, 0, 0], "high_ct": [10, 4, 4]}},
            [[13, 8, 2], [5, 1, 2], [-2, 2, 2], [5, 2, 2]],
            [5, -1, 2, -2],
        ),
    ],
)
def test_distances_to_regions_that_no_instrument_may_enter(shape, points, distances):
    region = NoGo(name="a", caution_mm=5, danger_mm=2, **shape)
    points = np.array(points, float)
    out, ahead = np.empty((len(points), 4)), np.empty((len(points), 4))
    region.distances(points, out)
    np.testing.assert_allclose(out[:, 0], distances, atol=1e-9)
    # The direction is that in which the distance grows by one for every mm.
    unit = np.linalg.norm(out[:, 1:], axis=1) > 0.5
    region.distances(points + 1e-4 * out[:, 1:], ahead)
    np.testing.assert_allclose((ahead[unit, 0] - out[unit, 0]) / 1e-4, 1, atol=1e-3)
    low, high = region.bounds_ct()
    inside = points[out[:, 0] < 0]
    assert ((inside > low) & (inside < high)).all()


def test_an_object_is_named_by_a_label_or_is_a_volume_of_its_own(folder):
    """The same bone both ways: cut out of the CT, counting from air, it is the same model."""
    ct = sitk.ReadImage(str(folder / "ct.nrrd"))
    cut = np.where(sitk.GetArrayFromImage(ct) > 0, 1900, 0)[3:9, 3:9, 3:9].astype(np.int16)
    bone = sitk.GetImageFromArray(cut)
    bone.SetOrigin((3, 3, 3))
    sitk.WriteImage(bone, str(folder / "bone.nrrd"))
    objects = [{"name": "label", "structures": ["bone"]}, {"name": "volume", "volume": "bone.nrrd"}]
    case = load(folder, objects=objects)
    assert [(o.name, o.labels) for o in case.objects] == [("label", (1,)), ("volume", ())]
    by_label, by_volume = (object_grid(case, o, 1.0) for o in case.objects)
    np.testing.assert_allclose(by_label.voxels, by_volume.voxels)
    np.testing.assert_allclose(by_label.centre_ct, by_volume.centre_ct)


def test_a_bone_volume_of_another_patient_is_refused(folder):
    far = sitk.GetImageFromArray(np.pad(np.full((3, 3, 3), 1900, np.int16), 1))
    far.SetOrigin((500, 0, 0))
    sitk.WriteImage(far, str(folder / "far.nrrd"))
    with pytest.raises(CaseError, match="objects: L1: .*has nothing where .*far.nrrd"):
        load(folder, objects=[{"name": "L1", "volume": "far.nrrd"}])


@pytest.mark.parametrize(
    ("shift", "said"), [((6, 0, 0), "lies in bone of"), ((0, 0, -9), "has nothing where 100 % of")]
)
def test_a_bone_volume_beside_its_bone_is_refused(folder, shift, said):
    bone = sitk.GetImageFromArray(np.pad(np.full((4, 4, 4), 1900, np.int16), 1))
    bone.SetOrigin((3, 3, 3))
    sitk.WriteImage(bone, str(folder / "bone.nrrd"))
    objects = [{"name": "L1", "volume": "bone.nrrd"}]
    assert load(folder, objects=objects).objects[0].volume is not None
    bone.SetOrigin(np.add((3.0, 3, 3), shift).tolist())
    sitk.WriteImage(bone, str(folder / "bone.nrrd"))
    with pytest.raises(CaseError, match=f"objects: L1: .*{said}"):
        load(folder, objects=objects)


def test_a_scan_that_is_all_air_is_refused(folder):
    sitk.WriteImage(sitk.GetImageFromArray(np.full((4, 4, 4), -1000, np.int16)), str(folder / "ct.nrrd"))
    with pytest.raises(CaseError, match="all air"):
        load(folder)


def test_the_embedded_case_is_small_whole_and_attributed():
    folder = embedded_case().parent
    names = ("ct.nrrd", "labels.nrrd", "surroundings.nrrd")
    assert sum((folder / n).stat().st_size for n in names) <= 8_000_000
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    origin = (folder / "ORIGIN.md").read_text()
    assert "LIDC-IDRI" in origin and "CC BY 3.0" in origin


def test_the_embedded_plan_stays_in_bone_and_away_from_the_cord(case):
    by_name = {s.name: s for s in case.structures}
    assert {"aorta", "spinal_cord", "vertebrae_T8"} <= set(by_name)
    assert len(case.plan) == 2
    for t in case.plan:
        path = np.linspace(t.entry_ct, t.target_ct, 30)[2:]
        assert by_name["vertebrae_T8"].field.sample(path)[0].max() < 0.5
        assert by_name["spinal_cord"].field.sample(path)[0].min() > by_name["spinal_cord"].danger_mm
    # Left is +x in LPS.
    assert case.plan[0].name == "T8_left" and case.plan[0].entry_ct[0] > case.plan[1].entry_ct[0]


def sphere(radius, spacing):
    size = [int(60 / s) for s in spacing]
    x, y, z = np.meshgrid(*[np.arange(n) * s for n, s in zip(size, spacing, strict=True)], indexing="ij")
    inside = (x - 30) ** 2 + (y - 30) ** 2 + (z - 30) ** 2 <= radius**2
    image = sitk.GetImageFromArray(inside.transpose(2, 1, 0).astype(np.uint8))
    image.SetSpacing(spacing)
    return image


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 2.5)])
def test_the_distance_to_a_sphere_is_right_inside_outside_and_beyond_the_grid(tmp_path, spacing):
    field = distance_field(sphere(15, spacing), 1, tmp_path)
    rng = np.random.default_rng(0)
    direction = rng.standard_normal((200, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    r = rng.uniform(5, 40, 200)
    distance, gradient = field.sample(30 + r[:, None] * direction)
    error = distance - (r - 15)
    voxel = max(spacing)
    assert np.abs(np.median(error[np.abs(r - 15) < 2])) < 0.25
    assert np.percentile(np.abs(error), 95) < 0.75 * voxel
    # Outside it errs towards the structure: an alert comes early rather than late.
    assert np.percentile(error[r > 15], 95) < 0.3 * voxel
    near = (r > 17) & (r < 27)
    assert np.median((gradient * direction).sum(1)[near]) > 0.98


def test_a_distance_field_is_computed_once_and_a_broken_cache_is_repaired(tmp_path):
    image = sphere(10, (2.0, 2.0, 2.0))
    first = distance_field(image, 1, tmp_path)
    (path,) = tmp_path.glob("*.npy")
    stamp = path.stat().st_mtime_ns
    np.testing.assert_array_equal(distance_field(image, 1, tmp_path).hundredths, first.hundredths)
    assert path.stat().st_mtime_ns == stamp
    path.write_bytes(b"half a file")
    np.testing.assert_array_equal(distance_field(image, 1, tmp_path).hundredths, first.hundredths)
