"""Texts in the character set that they are in, whatever the file says; no file is lost for its letters."""

import pydicom
import pytest
from tests.dicom.test_transfer_syntaxes import GOLDEN

from fluoronav.dicom.reading import read_dataset
from fluoronav.imaging.xray.file import read_xray

YAMADA = b"\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"  # PS3.5 H.3.1, in ISO 2022


def named(path, name, declared):
    """The golden image with a name in raw bytes, and any SpecificCharacterSet."""
    name += b" " * (len(name) % 2)
    dataset = pydicom.dcmread(GOLDEN / "plain.dcm")
    dataset.PatientName = "X" * len(name)
    if declared is not None:
        declared += b" " * (len(declared) % 2)
        dataset.SpecificCharacterSet = "Y" * len(declared)
    dataset.save_as(path)
    content = path.read_bytes().replace(b"X" * len(name), name)
    path.write_bytes(content if declared is None else content.replace(b"Y" * len(declared), declared))
    return path


@pytest.mark.parametrize(
    ("name", "declared", "read", "said"),
    [
        ("Müller".encode("latin-1"), b"ISO_IR 100", "Müller", ""),
        ("山田^太郎".encode(), b"ISO_IR 192", "山田^太郎", ""),
        (YAMADA, b"\\ISO 2022 IR 87", "山田^太郎", ""),
        ("山田".encode("gb18030"), b"GB18030", "山田", ""),
        ("Müller".encode(), None, "Müller", "is absent: its texts are read as UTF-8"),
        ("Müller".encode("latin-1"), None, "Müller", "is absent: its texts are read as Latin-1"),
        (YAMADA, None, "山田^太郎", "is absent: its texts are read as Japanese"),
        ("山田".encode(), b"ISO_IR 999", "山田", "is ISO_IR 999, which does not exist: its texts are read as UTF-8"),
        ("Müller".encode(), b"ISO_IR 6", "Müller", "which its texts are not in: its texts are read as UTF-8"),
        ("Müller^A".encode("latin-1"), b"ISO_IR 192", "Müller^A", "which its texts are not in"),
        (b"Meier", None, "Meier", ""),
    ],
)
def test_a_name_is_read_and_what_was_wrong_is_said_without_it(tmp_path, name, declared, read, said):
    path, notes = named(tmp_path / "a.dcm", name, declared), []
    dataset = read_dataset(path, notes=notes)
    assert str(dataset.PatientName) == read
    assert (said in notes[0]) if said else notes == []
    assert not any(read in note for note in notes)
    # What is made from it says the right character set.
    dataset.save_as(tmp_path / "again.dcm")
    assert str(pydicom.dcmread(tmp_path / "again.dcm").PatientName) == read
    assert read_xray(path, with_camera=True).attenuation.shape == (24, 40)
