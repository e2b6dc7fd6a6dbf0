import numpy as np
import pytest
import trimesh
import yaml
from manifold3d import CrossSection, Manifold

from fluoronav.planning.meshes.solid import MeshError, surface_of
from fluoronav.planning.simulation.catalogue import read_catalogue
from fluoronav.planning.simulation.shapes import tibial_outline
from fluoronav.planning.simulation.sizing import LIMITS, fits_of, suggested

SHIPPED = read_catalogue()
SIZES = [(family, size) for family, (entry, _) in SHIPPED.families.items() for size in entry.sizes]


@pytest.mark.parametrize(("family", "size"), SIZES)
def test_every_size_of_the_catalogue_is_one_closed_body(family, size):
    body, repaired = SHIPPED.body(family, size)
    assert surface_of(body).is_watertight and body.volume() > 0 and len(body.decompose()) == 1 and not repaired


def test_the_shipped_sizes_are_marked_as_a_demonstration():
    assert all(entry.demonstration for entry, _ in SHIPPED.families.values())
    assert {e.shape for e, _ in SHIPPED.families.values()} >= {
        "pedicle_screw",
        "rod",
        "plate",
        "knee_femoral",
        "knee_tibial",
    }


def test_larger_sizes_have_more_volume():
    for family, (entry, _) in SHIPPED.families.items():
        if family != "rod":
            volumes = [SHIPPED.body(family, size)[0].volume() for size in entry.sizes]
            assert volumes == sorted(volumes)


def test_a_bent_rod_has_the_length_of_its_axis():
    body = SHIPPED.body("rod", "bent-5.5x120")[0]
    assert body.volume() == pytest.approx(np.pi * 2.75**2 * 120, rel=0.02)


def tibia(size="3", wider=0.0):
    """A bone whose section is the outline of a size, wider by some mm on the left."""
    s = SHIPPED.families["knee_tibial"][0].sizes[size]
    outline = tibial_outline(s.width_mm, s.depth_mm)
    grown = CrossSection.batch_hull([outline, outline.translate((wider, 0))])
    return Manifold.extrude(grown, 60).translate((0, 0, -60))


def test_a_bone_of_a_sizes_outline_gets_that_size_wherever_it_lies():
    T = np.eye(4)
    T[:3, :3] = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    T[:3, 3] = [40, -700, 1200]
    fits = fits_of(SHIPPED, "knee_tibial", tibia("3").transform(T[:3]), T)
    best = suggested(fits)
    assert best is not None and best.size == "3"
    assert max(best.overhang_mm.values()) < 0.1 and best.covered > 0.9


def test_overhang_and_underhang_are_said_by_side():
    fits = {f.size: f for f in fits_of(SHIPPED, "knee_tibial", tibia("3", wider=5.0), np.eye(4))}
    assert fits["3"].underhang_mm["left"] == pytest.approx(5.0, abs=0.3)
    assert fits["3"].underhang_mm["right"] < 0.3
    assert fits["5"].overhang_mm["right"] == pytest.approx(4.0, abs=0.6)
    assert not fits["5"].fits and fits["5"].overhang_mm["right"] > LIMITS.overhang_mm


def test_no_size_is_suggested_for_a_bone_that_is_too_small():
    assert suggested(fits_of(SHIPPED, "knee_tibial", Manifold.cube((20, 20, 40), True), np.eye(4))) is None


def test_a_plane_beside_the_bone_is_refused():
    with pytest.raises(MeshError, match="misses the bone"):
        fits_of(SHIPPED, "knee_tibial", Manifold.cube((20, 20, 40), True).translate((0, 0, 300)), np.eye(4))


def written(tmp_path, families):
    path = tmp_path / "catalogue.yaml"
    path.write_text(yaml.safe_dump({"families": families}))
    return path


def test_an_stl_with_its_sizes_is_an_implant(tmp_path):
    trimesh.creation.box((12, 30, 4)).export(tmp_path / "cage.stl")
    path = written(tmp_path, {"cage": {"shape": "stl", "sizes": {"12": {"file": "cage.stl"}}}})
    catalogue = read_catalogue(path)
    assert catalogue.body("cage", "12")[0].volume() == pytest.approx(1440)
    assert "rod" in catalogue.families


def test_an_stl_in_metres_is_refused_when_it_is_used(tmp_path):
    trimesh.creation.box((0.012, 0.03, 0.004)).export(tmp_path / "cage.stl")
    path = written(tmp_path, {"cage": {"shape": "stl", "sizes": {"12": {"file": "cage.stl"}}}})
    with pytest.raises(MeshError, match="in metres"):
        read_catalogue(path).body("cage", "12")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"diameter_mm": 5}, "length_mm is missing"),
        ({"diameter_mm": 5, "length_mm": 40, "holes": 2}, "has no holes"),
        ({"diameter_mm": 0.005, "length_mm": 40}, "metres"),
        ({"diameter_mm": 5, "length_mm": 40, "wide": 2}, "wide"),
    ],
)
def test_a_wrong_size_is_refused_in_words(tmp_path, size, words):
    with pytest.raises(MeshError, match=words):
        read_catalogue(written(tmp_path, {"s": {"shape": "pedicle_screw", "sizes": {"a": size}}}))


def test_an_unknown_family_or_size_is_answered_with_what_there_is():
    with pytest.raises(MeshError, match="it has .*knee_tibial"):
        SHIPPED.body("hip", "1")
    with pytest.raises(MeshError, match="it has 1, 2, 3"):
        SHIPPED.body("knee_tibial", "9")
