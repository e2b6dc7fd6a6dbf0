"""Headers of NRRD, NIfTI and MetaImage: every key is used, checked against another, or refused by name."""

import gzip
import os
import socket
import struct
import threading

import numpy as np
import pytest
import SimpleITK as sitk
from tests.case.scans import ORIGIN, SPACING, patient

from fluoronav.case import CaseError, load_case, read_volume
from fluoronav.geometry import Camera, CameraError

IMAGE = patient()
VOXELS = sitk.GetArrayFromImage(IMAGE)
LAST = tuple(n - 1 for n in IMAGE.GetSize())
LAST_CT = np.array(IMAGE.TransformIndexToPhysicalPoint(LAST))


def nrrd(path, change=(), factor=(1, 1, 1), data=None, extra=b""):
    """A NRRD file whose lengths are multiplied by a factor on each axis."""
    f = np.array(factor, float)
    vectors = " ".join(
        "(" + ",".join(str(SPACING[a] * f[a] if a == b else 0) for b in range(3)) + ")" for a in range(3)
    )
    fields = {
        "type": "short", "dimension": "3", "space": "left-posterior-superior",
        "sizes": " ".join(map(str, IMAGE.GetSize())), "space directions": vectors,
        "space origin": "(" + ",".join(str(x) for x in np.array(ORIGIN) * f) + ")", "kinds": "domain domain domain",
        "endian": "little", "encoding": "raw",
    }  # fmt: skip
    fields.update(change)
    head = "NRRD0005\n" + "".join(f"{k}: {v}\n" for k, v in fields.items() if v is not None) + "\n"
    path.write_bytes(head.encode() + (VOXELS.astype("<i2").tobytes() if data is None else data) + extra)
    return path


def assert_in_place(volume):
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    np.testing.assert_allclose(volume.image.TransformIndexToPhysicalPoint(LAST), LAST_CT, atol=1e-3)


@pytest.mark.parametrize(
    ("units", "factor"),
    [
        (("mm", "mm", "mm"), (1, 1, 1)),
        (("cm", "cm", "cm"), (0.1, 0.1, 0.1)),
        (("m", "m", "m"), (1e-3, 1e-3, 1e-3)),
        (("um", "um", "um"), (1000, 1000, 1000)),
        (("in", "in", "in"), (1 / 25.4, 1 / 25.4, 1 / 25.4)),
        (("mm", "mm", "cm"), (1, 1, 0.1)),
    ],
)
def test_space_units_are_converted_to_mm_axis_by_axis(tmp_path, units, factor):
    written = nrrd(tmp_path / "a.nrrd", {"space units": " ".join(f'"{u}"' for u in units)}, factor)
    assert_in_place(read_volume(written))


def test_the_space_says_which_way_its_axes_point(tmp_path):
    origin = f"({-ORIGIN[0]},{-ORIGIN[1]},{ORIGIN[2]})"
    change = {"space": "RAS", "space origin": origin, "space directions": "(-1,0,0) (0,-1,0) (0,0,2)"}
    assert_in_place(read_volume(nrrd(tmp_path / "ras.nrrd", change)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"space units": '"parsec" "mm" "mm"'}, "`space units` says 'parsec'"),
        ({"space units": '"mm" "mm"'}, "gives 2 units for 3 axes"),
        ({"space": None}, "`space` is absent"),
        ({"space": "scanner-xyz"}, "`space` is scanner-xyz"),
        ({"space directions": None}, "no `space directions`"),
        ({"space origin": None}, "no `space origin`"),
        ({"space origin": "(0,nan,0)"}, "not given in finite numbers"),
        ({"space directions": "(1,0,0) none (0,0,2)"}, "not 3 vector"),
        ({"space directions": "(1,0,0) (0.3,1,0) (0,0,2)"}, "not perpendicular"),
        ({"space directions": "(1,0,0) (0,0,0) (0,0,2)"}, "spacing .* is not usable"),
        ({"space directions": "(0.001,0,0) (0,0.001,0) (0,0,0.002)"}, "spacing .* is not usable"),
        ({"kinds": "domain domain time"}, "`kinds` has 'time'"),
        ({"kinds": "RGB-color domain domain"}, "`kinds` has 'RGB-color'"),
        ({"measurement frame": "(0,1,0) (1,0,0) (0,0,1)"}, "measurement frame"),
        ({"spacings": "1 1 3"}, "`spacings` 1 1 3 stands beside"),
        ({"axis mins": "0 0 0"}, "`axis mins` 0 0 0 stands beside"),
        ({"units": '"cm" "cm" "cm"'}, "`units` says 'cm'"),
        ({"sample units": '"1/cm"'}, "`sample units` is '1/cm', not HU"),
        ({"old max": "4095"}, "`old max` is not understood"),
        ({"byte skip": "16"}, "`byte skip` 16 is not read"),
        ({"encoding": "bzip2"}, "encoding 'bzip2' is not read"),
        ({"type": "block"}, "`type` block is not read"),
        ({"sizes": "52 48 -26"}, "must be above 0"),
        ({"sizes": "52 48"}, "a volume has 3"),
        ({"data file": "LIST"}, "several files"),
        ({"data file": "slice%03d.raw 0 25 1"}, "several files"),
        ({"sizes": "40000 40000 40000"}, "need 238418.6 GiB of memory; at most 2 GiB are read: crop it"),
    ],
)
def test_a_nrrd_field_that_is_not_followed_is_refused_by_name(tmp_path, change, said):
    with pytest.raises(CaseError, match=said):
        read_volume(nrrd(tmp_path / "a.nrrd", change))


def test_a_modality_that_a_nrrd_names_has_to_be_ct(tmp_path):
    with pytest.raises(CaseError, match="its modality is MR, not CT"):
        read_volume(nrrd(tmp_path / "a.nrrd", {"modality:": None, "modality:=MR\n#": ""}))


def test_voxels_beside_the_header_are_read_and_a_pipe_in_their_place_is_not_opened(tmp_path):
    (tmp_path / "voxels.raw").write_bytes(VOXELS.astype("<i2").tobytes())
    assert_in_place(read_volume(nrrd(tmp_path / "a.nhdr", {"data file": "voxels.raw"}, data=b"")))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CaseError, match="pipe: is a named pipe, not a file"):
        read_volume(nrrd(tmp_path / "a.nhdr", {"data file": "pipe"}, data=b""))


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_voxels_that_are_fewer_or_more_than_the_header_says_are_refused(tmp_path, encoding):
    raw = VOXELS.astype("<i2").tobytes()
    pack = gzip.compress if encoding == "gzip" else bytes
    change = {"encoding": encoding}
    assert_in_place(read_volume(nrrd(tmp_path / "a.nrrd", change, data=pack(raw))))
    with pytest.raises(CaseError, match=rf"holds {len(raw) - 2} bytes of voxels where its header promises {len(raw)}"):
        read_volume(nrrd(tmp_path / "a.nrrd", change, data=pack(raw[:-2])))
    with pytest.raises(CaseError, match="holds more voxels than its header says"):
        read_volume(nrrd(tmp_path / "a.nrrd", change, data=pack(raw + raw)))
    if encoding == "gzip":
        # Two members of one stream, as bgzip writes them; and a damaged one.
        assert_in_place(read_volume(nrrd(tmp_path / "a.nrrd", change, data=pack(raw[:999]) + pack(raw[999:]))))
        with pytest.raises(CaseError, match="damaged|cannot be read|holds"):
            read_volume(nrrd(tmp_path / "a.nrrd", change, data=pack(raw)[:-3000] + b"\0" * 3000))


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii.gz", "a.mha"])
def test_a_bit_that_has_tipped_in_compressed_voxels_is_refused(tmp_path, name):
    noise = np.random.default_rng(0).integers(-1000, 1000, VOXELS.shape).astype(np.int16)
    image = sitk.GetImageFromArray(noise)
    image.CopyInformation(IMAGE)
    sitk.WriteImage(image, str(tmp_path / name), useCompression=True)
    np.testing.assert_array_equal(read_volume(tmp_path / name).voxels, noise)
    whole = (tmp_path / name).read_bytes()
    for at in (len(whole) // 3, len(whole) // 2, len(whole) - 3):
        content = bytearray(whole)
        content[at] ^= 1
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CaseError, match="damaged|end too soon|bytes of voxels|more voxels"):
            read_volume(tmp_path / name)
    (tmp_path / name).write_bytes(whole[:-300])
    with pytest.raises(CaseError, match="end too soon|CompressedDataSize"):
        read_volume(tmp_path / name)


def nifti(path, qform=1, sform=1, srow=None, units=2, edit=None):
    """The patient as NIfTI with these codes, and another sform or another header where wanted."""
    plain = path.with_name("plain.nii")
    sitk.WriteImage(IMAGE, str(plain))
    raw = bytearray(plain.read_bytes())
    struct.pack_into("<hh", raw, 252, qform, sform)
    raw[123] = units
    if srow is not None:
        struct.pack_into("<12f", raw, 280, *np.asarray(srow, float).ravel())
    if edit is not None:
        edit(raw)
    path.write_bytes(gzip.compress(bytes(raw)) if path.suffix == ".gz" else bytes(raw))
    return path


def srow():
    """The patient's own sform: RAS, mm."""
    return np.array([[-1.0, 0, 0, -ORIGIN[0]], [0, -1, 0, -ORIGIN[1]], [0, 0, 2, ORIGIN[2]]])


def tilted():
    out = srow()
    out[1, 2] = 2 * np.tan(np.radians(15))
    return out


def turned():
    c, s = np.cos(np.radians(12)), np.sin(np.radians(12))
    out = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ srow()
    out[:, 3] += [0, 0, 25]
    return out


def mirrored():
    return srow() * [[-1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("qform", "sform", "form"),
    [(1, 1, srow()), (0, 2, srow()), (1, 0, np.zeros((3, 4))), (1, 2, srow() + [0, 0, 0, 1e-4])],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_form_that_a_nifti_says_is_followed(tmp_path, name, qform, sform, form):
    assert_in_place(read_volume(nifti(tmp_path / name, qform, sform, form)))


def test_an_oblique_left_handed_qform_lies_where_simpleitk_puts_it(tmp_path):
    angle = np.radians(31)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, -1]])
    image = sitk.Image(IMAGE)
    image.SetDirection(turn.ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    for q, s in ((1, 0), (0, 1), (1, 1)):
        struct.pack_into("<hh", raw, 252, q, s)
        (tmp_path / "a.nii").write_bytes(raw)
        read = read_volume(tmp_path / "a.nii").image
        np.testing.assert_allclose(
            read.TransformIndexToPhysicalPoint(LAST), image.TransformIndexToPhysicalPoint(LAST), atol=1e-3
        )


@pytest.mark.parametrize(
    ("qform", "sform", "form", "said"),
    [
        (1, 1, tilted(), "not perpendicular .*a tilted gantry.*sform"),
        (0, 1, tilted(), "not perpendicular"),
        (1, 2, turned(), r"sform \(code 2\) and its qform \(code 1\) place the patient differently, by up to 26.6 mm"),
        (1, 1, mirrored(), "place the patient differently"),
        (0, 0, srow(), "sform_code and qform_code are both 0"),
        (0, 4, srow(), "sform .code 4. says a place in the MNI152 atlas, not in the patient"),
        (3, 1, srow(), "qform .code 3. says a place in Talairach's atlas"),
        (0, 1, srow() * [[1.2], [1.2], [1.2]], "pixdim says voxels of"),
        (0, 1, np.zeros((3, 4)), "an axis of no length"),
        (0, 1, srow() * np.nan, "no length|not given in finite numbers"),
    ],
)
def test_forms_that_disagree_or_say_no_place_in_the_patient_are_refused(tmp_path, qform, sform, form, said):
    with pytest.raises(CaseError, match=said):
        read_volume(nifti(tmp_path / "a.nii", qform, sform, form))


@pytest.mark.parametrize(("units", "mm"), [(1, 1000.0), (2, 1.0), (3, 1e-3), (10, 1.0), (0, 1.0)])
def test_nifti_units_are_converted_to_mm(tmp_path, units, mm):
    def in_units(raw):
        pixdim = np.array(struct.unpack_from("<3f", raw, 80)) / mm
        struct.pack_into("<3f", raw, 80, *pixdim)
        struct.pack_into("<3f", raw, 268, *(np.array(struct.unpack_from("<3f", raw, 268)) / mm))

    assert_in_place(read_volume(nifti(tmp_path / "a.nii", srow=srow() / mm, units=units, edit=in_units)))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda r: r.__setitem__(123, 5), "xyzt_units 5 names no known unit"),
        (lambda r: struct.pack_into("<8h", r, 40, 3, 20000, 20000, 20000, 1, 1, 1, 1), "at most 2 GiB are read"),
        (lambda r: struct.pack_into("<8h", r, 40, 4, 52, 48, 13, 2, 1, 1, 1), "4 dimensions"),
        (lambda r: struct.pack_into("<hh", r, 70, 128, 24), "datatype 128 of 24 bits is not read"),
        (lambda r: struct.pack_into("<h", r, 68, 1007), "intent_code 1007"),
        (lambda r: struct.pack_into("<ff", r, 112, float("nan"), 0), "scl_slope nan"),
        (lambda r: struct.pack_into("<3f", r, 256, 0.9, 0.9, 0.9), "quaternion longer than 1"),
        (lambda r: r.__setitem__(slice(344, 348), b"\0\0\0\0"), "is an Analyze file"),
        (lambda r: struct.pack_into("<i", r, 0, 540), "is NIfTI-2"),
        (lambda r: r.__delitem__(slice(-100, None)), "bytes of voxels where its header promises"),
    ],
)
def test_a_nifti_header_that_is_not_followed_is_refused_by_name(tmp_path, edit, said):
    with pytest.raises(CaseError, match=said):
        read_volume(nifti(tmp_path / "a.nii", edit=edit))


def metaimage(path, *changes):
    sitk.WriteImage(IMAGE, str(path), useCompression=False)
    head, name, data = path.read_bytes().partition(b"ElementDataFile = LOCAL\n")
    for old, new in changes:
        assert old in head, head
        head = head.replace(old, new)
    path.write_bytes(head + name + data)
    return path


def test_a_metaimage_is_read_and_its_units_are_converted(tmp_path):
    assert_in_place(read_volume(metaimage(tmp_path / "a.mha")))
    in_cm = ((b"Offset = -20 -30 40", b"DistanceUnits = cm\nOffset = -2 -3 4"), (b"1 1 2\n", b"0.1 0.1 0.2\n"))
    assert_in_place(read_volume(metaimage(tmp_path / "cm.mha", *in_cm)))
    image = sitk.DICOMOrient(IMAGE, "SRA")
    for name in ("oblique.mha", "oblique.mhd"):
        sitk.WriteImage(image, str(tmp_path / name), useCompression=True)
        np.testing.assert_allclose(read_volume(tmp_path / name).image.GetDirection(), image.GetDirection(), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((b"Offset = -20 -30 40\n", b""), "no Offset in its header, so no place"),
        ((b"ElementSpacing = 1 1 2\n", b""), "no ElementSpacing"),
        ((b"AnatomicalOrientation = RAI", b"AnatomicalOrientation = LPI"), "AnatomicalOrientation LPI and Transform"),
        ((b"NDims = 3\n", b"NDims = 3\nModality = MET_MOD_MR\n"), "its Modality is MR, not CT"),
        ((b"NDims = 3\n", b"NDims = 3\nElementToIntensityFunctionSlope = 2\n"), "ElementToIntensityFunction"),
        ((b"NDims = 3\n", b"NDims = 3\nDistanceUnits = ell\n"), "`DistanceUnits` says 'ell'"),
        ((b"DimSize = 52 48 26", b"DimSize = 52000 48000 26"), "at most 2 GiB are read"),
        ((b"DimSize = 52 48 26", b"DimSize = 52 48 25"), "holds more voxels than its header says"),
        ((b"DimSize = 52 48 26", b"DimSize = 52 48 27"), "where its header promises"),
        ((b"TransformMatrix = 1 0 0 0 1 0", b"TransformMatrix = 1 0 0 0.3 1 0"), "not perpendicular"),
    ],
)
def test_a_metaimage_key_that_is_not_followed_is_refused_by_name(tmp_path, change, said):
    with pytest.raises(CaseError, match=said):
        read_volume(metaimage(tmp_path / "a.mha", change))


def test_a_compressed_metaimage_says_how_long_its_voxels_are(tmp_path):
    sitk.WriteImage(IMAGE, str(tmp_path / "a.mha"), useCompression=True)
    assert_in_place(read_volume(tmp_path / "a.mha"))
    content = (tmp_path / "a.mha").read_bytes()
    for other in (b"Comment = ", b"CompressedDataSize = 1"):
        (tmp_path / "a.mha").write_bytes(content.replace(b"CompressedDataSize = ", other))
        with pytest.raises(CaseError, match="CompressedDataSize is .* bytes of voxels are there"):
            read_volume(tmp_path / "a.mha")


def test_another_picture_format_is_no_volume(tmp_path):
    sitk.WriteImage(sitk.Cast(IMAGE[:, :, 3], sitk.sitkUInt16), str(tmp_path / "a.png"))
    sitk.WriteImage(IMAGE, str(tmp_path / "a.vtk"))
    for name in ("a.png", "a.vtk"):
        with pytest.raises(CaseError, match="is no NRRD, NIfTI, MetaImage or DICOM file"):
            read_volume(tmp_path / name)


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path):
    head = b"NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: 1300 1300 1300\n"
    head += b"space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: gzip\n\n"
    (tmp_path / "bomb.nrrd").write_bytes(head + gzip.compress(b"\0" * 50_000_000))
    with pytest.raises(CaseError, match="1300 x 1300 x 1300 voxels need 8.2 GiB of memory; at most 2 GiB"):
        read_volume(tmp_path / "bomb.nrrd")


@pytest.mark.parametrize("what", ["pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_refused_at_once_wherever_a_case_names_one(tmp_path, what):
    odd = tmp_path / "odd"
    if what == "pipe":
        os.mkfifo(odd)
    elif what == "socket":
        socket.socket(socket.AF_UNIX).bind(str(odd))
    elif what == "device":
        odd.symlink_to("/dev/zero")
    else:
        odd.mkdir()
    opened = [lambda: Camera.load(odd)]
    if what != "folder":
        opened += [lambda: read_volume(odd), lambda: load_case(odd)]
    said = {"pipe": "a named pipe", "socket": "a socket", "device": "a device", "folder": "a folder"}[what]
    for open_it in opened:
        found = []

        def attempt(open_it=open_it, found=found):
            try:
                open_it()
            except (CaseError, CameraError) as error:
                found.append(str(error))

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(60)
        assert found and said in found[0]
