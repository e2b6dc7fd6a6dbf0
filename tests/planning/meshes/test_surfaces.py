import numpy as np
import pytest
import SimpleITK as sitk
import trimesh

from fluoronav.case import load_case
from fluoronav.case.surface import surface
from fluoronav.planning.meshes.of_mask import mask_of, surface_of_mask
from fluoronav.planning.meshes.parts import Part, cylinder_between, part, write_3mf, write_stl
from fluoronav.planning.meshes.reading import read_surface
from fluoronav.planning.meshes.solid import Mesh, MeshError, solid, surface_of

AXES = np.eye(3)


def block(direction=AXES, spacing=(0.7, 0.9, 2.5), origin=(-100.0, 40.0, 900.0)):
    """An asymmetric L of label 7, which touches two sides of its grid."""
    voxels = np.zeros((14, 30, 26), np.uint8)
    voxels[0:9, 4:20, 3:12] = 7
    voxels[0:4, 12:20, 12:26] = 7
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(np.asarray(direction, float).ravel().tolist())
    return image


def oblique():
    return np.array(sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.5).GetMatrix()).reshape(3, 3)


GRIDS = {
    "straight": np.eye(3),
    "oblique": oblique(),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "left-handed": np.diag([1.0, 1.0, -1.0]),
    "oblique and left-handed": oblique() @ np.diag([-1.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_surface_lies_where_its_voxels_are_and_faces_outwards(name):
    image = block(GRIDS[name])
    made = surface_of_mask(mask_of(image, 7, "L"), "L")
    assert made.mesh.is_watertight
    assert made.mesh.volume_mm3 > 0 and abs(made.volume_error) < 0.005
    inside = np.argwhere(sitk.GetArrayFromImage(image) == 7)[:, ::-1]
    centres = np.array([image.TransformIndexToPhysicalPoint([int(k) for k in i]) for i in inside])
    mesh = trimesh.Trimesh(made.mesh.points, made.mesh.triangles, process=False)
    assert np.allclose(mesh.center_mass, centres.mean(0), atol=0.15)
    low, high = centres.min(0) - 2, centres.max(0) + 2
    assert (made.mesh.points > low).all() and (made.mesh.points < high).all()


def test_an_empty_label_is_refused_by_name():
    with pytest.raises(MeshError, match="aorta: label 52 has no voxel"):
        mask_of(block(), 52, "aorta")


def test_one_voxel_is_a_closed_surface_of_its_volume():
    voxels = np.zeros((3, 3, 3), np.uint8)
    voxels[1, 1, 1] = 1
    image = sitk.GetImageFromArray(voxels)
    made = surface_of_mask(mask_of(image, 1, "dot"), "dot", 0.0)
    assert made.mesh.is_watertight and made.mesh.volume_mm3 > 0


@pytest.mark.parametrize("frame", ["lps", "ras"])
def test_stl_is_in_the_frame_that_was_asked_for_and_keeps_its_handedness(tmp_path, frame):
    made = surface_of_mask(mask_of(block(), 7, "L"), "L").mesh
    (path,) = write_stl([Part("the L", "structure", made, "#ffffff")], tmp_path, frame)
    assert path.name == f"the_L.{frame}.stl" and frame.upper().encode() in path.read_bytes()[:80]
    loaded = trimesh.load(path, force="mesh")
    sign = np.array([1, 1, 1]) if frame == "lps" else np.array([-1, -1, 1])
    assert np.allclose(loaded.bounds.mean(0), made.points.min(0) / 2 * sign + made.points.max(0) / 2 * sign, atol=1e-3)
    assert loaded.is_watertight and loaded.volume > 0


def test_3mf_says_its_unit_and_keeps_names_and_volumes(tmp_path):
    import zipfile

    bodies = [part(n, "screw", cylinder_between(np.zeros(3), np.array([0, 0, 30.0]), 2.5)) for n in ("left", "right")]
    path = write_3mf(bodies, tmp_path / "plan.3mf", "ras")
    assert b'unit="millimeter"' in zipfile.ZipFile(path).read("3D/3dmodel.model")
    scene = trimesh.load(path)
    assert set(scene.geometry) == {"left", "right"}
    assert all(g.is_watertight and np.isclose(g.volume, bodies[0].mesh.volume_mm3) for g in scene.geometry.values())


def saved(mesh, path):
    trimesh.Trimesh(mesh.points, mesh.triangles, process=False).export(path)
    return path


def screw_mesh():
    return surface_of(cylinder_between(np.zeros(3), np.array([0, 0, 40.0]), 3.0))


def test_an_stl_in_metres_is_refused(tmp_path):
    mesh = screw_mesh()
    with pytest.raises(MeshError, match="in metres it would be 40 mm"):
        read_surface(saved(Mesh(mesh.points / 1000, mesh.triangles), tmp_path / "m.stl"))


def test_an_stl_in_micrometres_is_refused(tmp_path):
    mesh = screw_mesh()
    with pytest.raises(MeshError, match="micrometres"):
        read_surface(saved(Mesh(mesh.points * 1000, mesh.triangles), tmp_path / "um.stl"))


def test_an_stl_with_a_missing_part_is_refused(tmp_path):
    mesh = surface_of(cylinder_between(np.zeros(3), np.array([0, 0, 40.0]), 3.0).refine(4))
    with pytest.raises(MeshError, match="is not closed"):
        read_surface(saved(Mesh(mesh.points, mesh.triangles[: len(mesh.triangles) // 2]), tmp_path / "half.stl"))


def test_an_edge_of_three_triangles_is_refused(tmp_path):
    mesh = screw_mesh()
    fin = np.vstack([mesh.points, [[9.0, 9.0, 9.0]]])
    triangles = np.vstack([mesh.triangles, [[*mesh.triangles[0, :2], len(mesh.points)]]])
    with pytest.raises(MeshError, match="more than two"):
        read_surface(saved(Mesh(fin, triangles), tmp_path / "fin.stl"))


def test_a_missing_triangle_and_a_turned_surface_are_repaired_and_said(tmp_path):
    mesh = screw_mesh()
    repaired, said = read_surface(saved(Mesh(mesh.points, mesh.triangles[1:, ::-1]), tmp_path / "hole.stl"))
    assert any("hole" in s for s in said) and any("inwards" in s for s in said)
    assert repaired.is_watertight and np.isclose(repaired.volume_mm3, mesh.volume_mm3, rtol=1e-4)


def test_a_text_that_is_no_stl_is_refused(tmp_path):
    (tmp_path / "no.stl").write_text("no triangles here")
    with pytest.raises(MeshError, match=r"no\.stl"):
        read_surface(tmp_path / "no.stl")


def test_an_open_surface_is_no_solid():
    mesh = screw_mesh()
    with pytest.raises(MeshError, match="no closed surface"):
        solid(Mesh(mesh.points, mesh.triangles[:-1]), "screw")


def test_surfaces_of_a_loaded_case_face_outwards():
    assert Mesh(*surface(load_case("embedded").structures[2])).volume_mm3 > 0
