"""Canal, body and pedicles of a vertebra from its mask alone; what cannot be used is refused in words."""

import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.geometry import exp_so3
from fluoronav.planning.screws.bone import VertebraError
from fluoronav.planning.screws.catalogue import read_catalogue
from fluoronav.planning.screws.grading import graded
from fluoronav.planning.screws.proposal import proposed
from fluoronav.planning.screws.spine import ORDER, spine_of_names, spine_of_scheme
from fluoronav.planning.screws.vertebra import read_vertebra

OBLIQUE = exp_so3(np.deg2rad([12.0, -9.0, 20.0]))
FLIPPED = np.diag([-1.0, 1.0, -1.0])  # as many NIfTI files are
SWAPPED = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])  # sagittal slices


@pytest.mark.parametrize(
    "direction", [np.eye(3), FLIPPED, SWAPPED, OBLIQUE], ids=["lps", "flipped", "swapped", "oblique"]
)
def test_left_and_right_are_the_patients_on_any_grid(phantom, direction):
    vertebra = read_vertebra(phantom.image((0.8, 0.9, 0.7), direction), 20, "L1")
    isthmus = {s: vertebra.canal.to_ct(p.isthmus[None])[0] - phantom.centre_ct for s, p in vertebra.pedicles.items()}
    # LPS: x grows to the patient's left; the left pedicle is the wide one.
    assert isthmus["left"][0] == pytest.approx(14.0, abs=1.0)
    assert isthmus["right"][0] == pytest.approx(-12.5, abs=1.0)
    assert vertebra.pedicles["left"].radius_mm == pytest.approx(4.0, abs=0.6)
    assert vertebra.pedicles["right"].radius_mm == pytest.approx(2.5, abs=0.5)


def test_the_canal_is_found_from_the_ring_where_the_vertebra_is_tilted(phantom):
    tilt = exp_so3(np.deg2rad([28.0, 0, 0])) @ exp_so3(np.deg2rad([0, 15.0, 0]))
    image = phantom.image()
    image.SetDirection(tilt.ravel().tolist())
    image.SetOrigin((tilt @ np.array(image.GetOrigin())).tolist())
    canal = read_vertebra(image, 20, "L1").canal
    off = np.rad2deg(np.arccos(canal.T_ct_vertebra[:3, 2] @ tilt[:, 2]))
    middle = canal.T_ct_vertebra[:3, 3] - tilt @ np.array(phantom.centre_ct)
    assert off < 4
    assert np.linalg.norm(middle - tilt[:, 2] * (middle @ tilt[:, 2])) < 2


def test_a_ring_that_is_open_at_the_back_keeps_its_pedicles_with_a_note(phantom):
    whole = read_vertebra(phantom.image(), 20, "L1")
    opened = read_vertebra(phantom.image(ring_open=True), 20, "L1")
    assert not whole.canal.is_open and opened.canal.is_open
    assert "L1: its ring is open at the back" in opened.notes[0] and not whole.notes
    assert opened.canal.front_mm - opened.canal.back_mm == pytest.approx(16, abs=3)
    for side, pedicle in whole.pedicles.items():
        found = opened.pedicles[side]
        assert found.radius_mm == pytest.approx(pedicle.radius_mm, abs=0.4)
        ends = [v.canal.to_ct(p.isthmus[None])[0] for v, p in ((whole, pedicle), (opened, found))]
        # The pedicle is a box, 14 mm tall: along it and up and down in it, bone is as wide.
        assert abs(ends[0][0] - ends[1][0]) < 1 and abs(ends[0][2] - ends[1][2]) < 4


def test_a_screw_in_an_open_ring_fits_the_vertebra_that_was_whole(phantom):
    whole, opened = (read_vertebra(phantom.image(ring_open=o), 20, "L1") for o in (False, True))
    for side in ("left", "right"):
        screw = proposed(opened, side, read_catalogue())
        assert screw.fits, screw.reason
        assert graded(screw.entry_ct, screw.tip_ct, screw.diameter_mm, side, whole).grade == "A"


def test_a_body_without_pedicles_is_refused_in_words(phantom):
    image = phantom.image()
    voxels = sitk.GetArrayFromImage(image)
    z, y, x = np.nonzero(voxels)
    back = np.array(image.GetOrigin())[1] + 0.8 * y - phantom.centre_ct[1] > -9
    voxels[z[back], y[back], x[back]] = 0
    body = sitk.GetImageFromArray(voxels)
    body.CopyInformation(image)
    with pytest.raises(VertebraError, match=r"L1: its ring is not closed .* no canal lies between two pedicles"):
        read_vertebra(body, 20, "L1")


def test_a_label_in_two_pieces_is_refused_and_specks_are_left_out(phantom):
    image = phantom.image()
    voxels = sitk.GetArrayFromImage(image)
    voxels[2:4, 2:4, 2:4] = 20
    speckled = sitk.GetImageFromArray(voxels)
    speckled.CopyInformation(image)
    assert "1 specks" in read_vertebra(speckled, 20, "L1").bone.notes[0]
    voxels[: voxels.shape[0] // 4] = 20
    voxels[voxels.shape[0] // 4 : voxels.shape[0] // 4 + 3] = 0
    broken = sitk.GetImageFromArray(voxels)
    broken.CopyInformation(image)
    with pytest.raises(VertebraError, match=r"L1: its label is in 2 pieces, .*: join them"):
        read_vertebra(broken, 20, "L1")


def test_a_vertebra_that_the_scan_cuts_off_is_refused(phantom):
    image = phantom.image()
    cut = image[:, :, image.GetSize()[2] // 2 :]
    with pytest.raises(VertebraError, match=r"L1: is only partly in the scan: its border cuts \d+ mm2"):
        read_vertebra(cut, 20, "L1")


def test_an_empty_and_a_tiny_label_are_refused(phantom):
    image = phantom.image()
    with pytest.raises(VertebraError, match=r"L2: its label \(21\) has no voxel"):
        read_vertebra(image, 21, "L2")
    voxels = np.zeros_like(sitk.GetArrayFromImage(image))
    voxels[20:25, 20:25, 20:25] = 20
    tiny = sitk.GetImageFromArray(voxels)
    with pytest.raises(VertebraError, match=r"L1: its label has 0\.1 cm3"):
        read_vertebra(tiny, 20, "L1")


def test_a_map_that_is_turned_front_to_back_is_refused(phantom):
    image = phantom.image()
    turned = sitk.Flip(image, (False, True, False))
    turned.CopyInformation(image)
    with pytest.raises(VertebraError, match=r"its body lies behind its spinal canal .* mirrored"):
        read_vertebra(turned, 20, "L1")


def test_a_pedicle_that_is_missing_is_said_and_the_other_is_found(phantom):
    image = phantom.image()
    voxels = sitk.GetArrayFromImage(image)
    z, y, x = np.nonzero(voxels)
    points = np.array(image.GetOrigin()) + np.stack([x, y, z], 1) * 0.8 - phantom.centre_ct
    gone = (points[:, 0] > 9) & (np.abs(points[:, 1] + 3) < 3)
    voxels[z[gone], y[gone], x[gone]] = 0
    # The ring stays closed by the thinnest sheet.
    sheet = gone & (points[:, 0] < 10.9) & (np.abs(points[:, 2] - 4) < 7)
    voxels[z[sheet], y[sheet], x[sheet]] = 20
    broken = sitk.GetImageFromArray(voxels)
    broken.CopyInformation(image)
    vertebra = read_vertebra(broken, 20, "L1")
    left = vertebra.pedicles.get("left")
    assert left is None or left.radius_mm < 1.75
    assert vertebra.pedicles["right"].radius_mm > 2


def spine(levels, *, downwards=True, sides=None):
    """A label map with a box for each level, one above the other, and two ribs."""
    voxels = np.zeros((10 * len(levels) + 10, 30, 60), np.uint8)
    for k in range(len(levels)):
        voxels[10 * k + 5 : 10 * k + 11, 10:20, 25:35] = k + 1
    names = {k + 1: f"vertebrae_{level}" for k, level in enumerate(reversed(levels) if downwards else levels)}
    if sides is not None:
        voxels[5:10, 10:20, 2:10], voxels[5:10, 10:20, 50:58] = 100, 101
        names |= {100: f"rib_{sides[0]}_5", 101: f"rib_{sides[1]}_5"}
    return sitk.GetImageFromArray(voxels), names


def test_levels_that_follow_one_another_upside_down_are_refused():
    with pytest.raises(VertebraError, match="T8 lies below T9.*upside down"):
        spine_of_names(*spine(["T8", "T9", "T10"], downwards=False))
    image, names = spine(["T8", "T9", "T10", "T11"])
    names[2], names[3] = names[3], names[2]
    with pytest.raises(VertebraError, match="T9 lies below T10: their labels are exchanged"):
        spine_of_names(image, names)


def test_a_mirrored_map_is_refused():
    assert spine_of_names(*spine(["T8", "T9"], sides=("right", "left"))).values
    with pytest.raises(VertebraError, match="rib_left_5 lies right of rib_right_5 .*mirrored"):
        spine_of_names(*spine(["T8", "T9"], sides=("left", "right")))


def test_transitional_levels_have_their_place_and_unknown_ones_are_named(phantom):
    assert ORDER[ORDER.index("T12") + 1] == "T13"
    assert ORDER[ORDER.index("L5") + 1] == "L6"
    image = phantom.image(value=25)
    assert spine_of_scheme(image, "verse").vertebra("L6").level == "L6"
    assert spine_of_scheme(phantom.image(value=28), "verse").vertebra("t13").level == "T13"
    with pytest.raises(VertebraError, match="L1: is not in the label map; its vertebrae are: L6"):
        spine_of_scheme(image, "verse").vertebra("L1")
    with pytest.raises(VertebraError, match="'X9' is no vertebral level"):
        spine_of_scheme(image, "verse").vertebra("X9")


def test_no_screw_is_proposed_beside_the_vertebral_artery(phantom):
    with pytest.raises(VertebraError, match="C4: pedicle screws are proposed from C7 to L6"):
        read_vertebra(phantom.image(), 20, "C4")
