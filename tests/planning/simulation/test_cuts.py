import numpy as np
import pytest
from manifold3d import Manifold
from scipy.spatial.transform import Rotation

from fluoronav.planning.meshes.solid import MeshError, surface_of
from fluoronav.planning.plan.schema import Cut, Move
from fluoronav.planning.simulation.cuts import cut, move, overlap_mm3, report

BONE = Manifold.cube((30, 20, 40), True) + Manifold.sphere(14, 64).translate((3, 5, 8))


def plane(name, point=(0, 0, 0), normal=(0, 0, 1), kerf=1.0, **more):
    return Cut(id=name, origin="drawn", structure="bone", point_ct=point, normal_ct=normal, kerf_mm=kerf, **more)


def turn(name, cut_id, degrees, about=(0, 0, 0), shift=(0, 0, 0)):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("x", degrees, degrees=True).as_matrix()
    T[:3, 3] = np.asarray(about) - T[:3, :3] @ about + shift
    return Move(id=name, origin="drawn", cut=cut_id, T_moved_ct=T.tolist())


@pytest.mark.parametrize("seed", range(8))
def test_pieces_and_kerf_are_the_whole_bone(seed):
    rng = np.random.default_rng(seed)
    cuts = [plane(f"c{k}", tuple(rng.uniform(-5, 5, 3)), tuple(rng.normal(size=3)), float(k) / 2) for k in range(3)]
    bone = cut("bone", BONE, cuts)
    assert abs(bone.conservation) < 1e-4
    assert all(surface_of(p.body).is_watertight for p in bone.pieces)


def test_the_saw_takes_half_of_its_kerf_on_each_side():
    bone = cut("bone", Manifold.cube((10, 10, 10), True), [plane("c", kerf=2.0)])
    assert np.allclose([p.body.volume() for p in bone.pieces], 400)
    assert np.isclose(bone.kerf.volume(), 200)


def test_a_normal_of_any_length_cuts_the_same():
    one, other = (cut("bone", BONE, [plane("c", (1, 2, 3), n)]) for n in ((0, 0.6, 0.8), (0, 6.0, 8.0)))
    assert np.allclose([p.body.volume() for p in one.pieces], [p.body.volume() for p in other.pieces])


def wedge(angle=12.0):
    a = np.deg2rad(angle)
    hinge = (0.0, -9.0, -2.0)
    return [plane("low", hinge, kerf=0.0, wedge_to="up"), plane("up", hinge, (0, -np.sin(a), np.cos(a)), 0.0)], hinge


def test_a_wedge_is_taken_out_and_its_angle_is_said():
    cuts, _ = wedge()
    bone = cut("bone", BONE, cuts)
    said = report(bone, cuts, [])
    assert said["wedges"][0]["angle_deg"] == pytest.approx(12.0, abs=1e-3)
    taken = [p for p in bone.pieces if p.taken_out]
    assert len(taken) == 1
    assert said["wedges"][0]["volume_cm3"] == pytest.approx(taken[0].body.volume() / 1000, abs=1e-4)


def test_a_closed_wedge_leaves_neither_gap_nor_overlap():
    cuts, hinge = wedge()
    bone = move(cut("bone", BONE, cuts), [turn("m", "up", -12.0, hinge)])
    kept = [p.body for p in bone.pieces if not p.taken_out]
    assert overlap_mm3(bone) < 1e-3 * BONE.volume()
    # Both surfaces of the wedge lie in the lower plane now.
    upper = next(p for p in bone.pieces if p.sides == {"low": 1, "up": 1})
    assert upper.body.bounding_box()[2] == pytest.approx(hinge[2], abs=1e-6)
    assert len(kept) >= 2


def test_moves_keep_volume_and_leave_the_other_side_alone():
    bone = cut("bone", BONE, [plane("c")])
    moved = move(bone, [turn("m", "c", 10, shift=(1, 2, 3))])
    assert np.allclose([p.body.volume() for p in moved.pieces], [p.body.volume() for p in bone.pieces])
    assert [p.moved_by for p in moved.pieces] == [("m",), ()]


def test_pieces_pushed_into_one_another_are_said():
    cuts = [plane("c")]
    bone = move(cut("bone", BONE, cuts), [turn("m", "c", 0, shift=(0, 0, -6))])
    assert report(bone, cuts, [turn("m", "c", 0, shift=(0, 0, -6))])["overlap_cm3"] > 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (plane("c", (0, 0, 500)), "misses bone"),
        (plane("c", normal=(0, 0, 0)), "normal_ct is 0"),
        (plane("c", wedge_to="other"), "no other cut"),
    ],
)
def test_a_cut_that_cannot_be_made_is_refused(wrong, words):
    with pytest.raises(MeshError, match=words):
        cut("bone", BONE, [wrong])


@pytest.mark.parametrize("T", [np.diag([1.0, 1, -1, 1]), np.diag([2.0, 2, 2, 1]), np.eye(3)])
def test_a_move_that_is_not_rigid_is_refused(T):
    with pytest.raises(ValueError, match="rigid, right-handed"):
        Move(id="m", origin="drawn", cut="c", T_moved_ct=T.tolist())
