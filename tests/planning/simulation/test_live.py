"""A plan's surgery that is carried out again while a person changes it."""

import numpy as np
import pytest
from tests.planning.planned_case import planned_case
from tests.planning.simulation.test_resection import scene

from fluoronav.planning.meshes.solid import MeshError
from fluoronav.planning.plan.planned import read_planned
from fluoronav.planning.plan.schema import Cut, Implant, Move, Resection
from fluoronav.planning.simulation.bodies import Bodies, Kept, LabelMap
from fluoronav.planning.simulation.catalogue import read_catalogue
from fluoronav.planning.simulation.live import Live
from fluoronav.planning.simulation.simulate import simulate

STRUCTURES = {"lesion": 1, "vertebrae_T8": 2, "aorta": 3}


def cut(at=(20.0, 24.0, 30.0), normal=(1.0, 0.2, 0.1), **more):
    return Cut(id="c1", origin="drawn", structure="vertebrae_T8", point_ct=at, normal_ct=normal, kerf_mm=1.2, **more)


def lifted(mm=3.0):
    T = np.eye(4)
    T[0, 3] = mm
    return Move(id="m1", origin="drawn", cut="c1", T_moved_ct=T.tolist())


def margin(mm):
    return Resection(id="r1", origin="drawn", lesion="lesion", margin_mm=mm)


@pytest.fixture
def live():
    return Live()


@pytest.fixture
def bodies(live):
    return live.bodies_of(LabelMap.of_image(scene()), STRUCTURES, "a")


def numbers(value):
    """All numbers of a report, in their order."""
    if isinstance(value, dict):
        value = [v for k, v in value.items() if k not in ("seconds", "exact")]
    if isinstance(value, list):
        return [n for v in value for n in numbers(v)]
    return [float(value)] if isinstance(value, (int, float)) else []


def same(ours, theirs):
    assert [len(ours[k]) for k in ("cuts", "resections", "implants")] == [
        len(theirs[k]) for k in ("cuts", "resections", "implants")
    ]
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-4, atol=1e-9)


def test_after_other_values_the_exact_result_is_that_of_the_export(tmp_path):
    """To 0.01 %: with kept bodies, and with distances that reach farther than the margin."""
    low, high = (14.4, 109.8, -158.0), (0.0, 0.0, 1.0)
    c = Cut(id="c1", origin="drawn", structure="T8", point_ct=low, normal_ct=high, kerf_mm=1.2)
    items = (c, lifted(), Resection(id="r1", origin="drawn", lesion="spinal_cord", margin_mm=1.3))
    planned = read_planned(planned_case(tmp_path / "case", *items))
    theirs = simulate(planned, read_catalogue(), lambda text: None).report
    live = Live()
    bodies = live.bodies_of(
        LabelMap.of_image(planned.label_image), {s.name: s.label for s in planned.structures}, "a"
    )  # fmt: skip
    before = [c.model_copy(update={"kerf_mm": 2.0}), items[2].model_copy(update={"margin_mm": 3.0})]
    assert not live.simulated(bodies, before, exact=False).report["exact"]
    live.simulated(bodies, before, exact=True)
    ours = live.simulated(bodies, items, exact=True).report
    assert ours["exact"]
    same(ours, theirs)


def test_the_distances_are_the_same_however_far_they_reach(bodies):
    exact = Bodies(bodies.labels, STRUCTURES, "the case", Kept(0))
    for mm in (1.0, 2.5, 4.9):
        ours = bodies.around("lesion", mm)
        theirs = exact.around("lesion", mm)
        assert (ours.reach_mm, theirs.reach_mm) == (5.0, mm)
        assert ours.body(mm).volume() == pytest.approx(theirs.body(mm).volume(), rel=1e-5)
        others = {n: k for n, k in STRUCTURES.items() if n != "lesion"}
        assert ours.through_mm3(mm, others) == theirs.through_mm3(mm, others)


def test_a_preview_is_near_the_exact_result_and_says_that_it_is_none(live, bodies):
    items = [cut(), lifted(), margin(4.0)]
    preview = live.simulated(bodies, items, exact=False).report
    exact = live.simulated(bodies, items, exact=True).report
    assert (preview["exact"], exact["exact"]) == (False, True)
    for section in ("cuts", "resections"):
        ours, theirs = numbers(preview[section]), numbers(exact[section])
        np.testing.assert_allclose(ours, theirs, rtol=0.1, atol=0.02)
    assert live.simulated(bodies, items, exact=False).report["exact"]  # known: nothing is coarse


def test_a_change_makes_anew_only_the_step_that_it_concerns(live, bodies):
    before = live.simulated(bodies, [cut(), margin(4.0)], exact=True)
    after = live.simulated(bodies, [cut(), margin(4.5)], exact=False)
    assert after.parts[0].mesh is before.parts[0].mesh and after.report["cuts"] == before.report["cuts"]
    assert after.report["resections"] != before.report["resections"]
    assert not after.report["exact"]


def test_moved_pieces_say_where_from_and_have_colours_of_their_own(live, bodies):
    parts = live.simulated(bodies, [cut(), lifted(3.0)], exact=False).parts
    pieces = [p for p in parts if p.kind == "piece"]
    assert len({p.color for p in pieces}) == 2 and {p.structure for p in pieces} == {"vertebrae_T8"}
    moved, stayed = sorted(pieces, key=lambda p: p.T_moved_ct is None)
    assert stayed.T_moved_ct is None
    np.testing.assert_allclose(moved.T_moved_ct, lifted(3.0).T_moved_ct)


def test_what_is_kept_stays_within_its_bytes(bodies):
    live = Live(kept_bytes=2_000_000)
    for k in range(12):
        own = live.bodies_of(bodies.labels, STRUCTURES, k)
        live.simulated(own, [cut(), margin(4.0)], exact=True)
        assert 0 < live.kept.bytes <= 2_000_000


def test_the_least_used_thing_goes_first_and_what_is_too_large_is_not_kept():
    kept = Kept(100)
    for name in "ab":
        kept.of(name, lambda name=name: name.upper(), lambda made: 50)
    kept.known("a")
    kept.of("c", lambda: "C", lambda made: 50)
    assert (kept.known("a"), kept.known("b"), kept.known("c")) == ("A", None, "C")
    assert kept.of("d", lambda: "D", lambda made: 101) == "D"
    assert kept.known("d") is None and kept.bytes == 100
    kept.keep("a", "again", 10)
    assert kept.known("a") == "again" and kept.bytes == 60


def test_a_cut_beside_the_bone_is_refused_while_it_is_dragged_as_in_the_export(live, bodies):
    for exact in (False, True):
        with pytest.raises(MeshError, match="misses vertebrae_T8"):
            live.simulated(bodies, [cut(at=(900.0, 0.0, 0.0), normal=(1.0, 0.0, 0.0))], exact=exact)


def test_the_sizes_of_an_implant_are_compared_in_a_preview_too(live, bodies):
    T = np.eye(4)
    T[:3, 3] = (30.0, 24.0, 36.0)
    plate = Implant(
        id="i1", origin="drawn", family="plate", size="3-hole", T_ct_implant=T.tolist(), structure="vertebrae_T8"
    )
    (preview,) = live.simulated(bodies, [plate], exact=False).report["implants"]
    (exact,) = live.simulated(bodies, [plate], exact=True).report["implants"]
    assert [s["size"] for s in preview["sizes"]] == [s["size"] for s in exact["sizes"]]
    assert preview["suggested"] == exact["suggested"]
