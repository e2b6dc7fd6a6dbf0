"""What an error or a note tells a person to do can be done: every option that it names exists."""

import argparse
import ast
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import fluoronav
from fluoronav.case import CaseError
from fluoronav.cli import build_parser
from fluoronav.imaging.registration.register import RegisterError, RegistrationRequest, register_files

SOURCE = Path(fluoronav.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
# Words of other programs, in the lists that start them.
OTHERS = {"display.py", "build.py"}


def options(parser):
    """Every option of a parser and of its verbs."""
    found = set()
    for action in parser._actions:
        found |= {o for o in action.option_strings if o.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                found |= options(verb)
    return found


def texts(file):
    """The strings of a module that are sentences: no option is one alone."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.value


FILES = sorted(f for f in SOURCE.rglob("*.py") if f.name not in OTHERS)


def test_every_option_that_a_text_names_exists():
    known = options(build_parser())
    named = {(str(f.relative_to(SOURCE)), o) for f in FILES for text in texts(f) for o in OPTION.findall(text)}
    assert len(named) > 5
    assert {(f, o) for f, o in named if o not in known} == set()


def test_register_has_the_option_that_its_error_names(tmp_path):
    """A folder of two series: the case file has a key for it, this command an option."""
    ct = tmp_path / "ct"
    ct.mkdir()
    for k in range(4):
        slice_of_series(ct / f"{k}.dcm", k % 2, k)
    image, camera = tmp_path / "a.png", tmp_path / "carm.yaml"
    cv2.imwrite(str(image), np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    camera.write_text("rows: 64\ncols: 64\nK: [[200, 0, 31.5], [0, 200, 31.5], [0, 0, 1]]\n")
    request = RegistrationRequest(ct, [image], cameras=[camera], auto=True)
    with pytest.raises((RegisterError, CaseError), match="--series") as caught:
        register_files(request)
    named = OPTION.findall(str(caught.value))
    register = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices["register"]
    assert named and set(named) <= options(register)


UIDS = [generate_uid(), generate_uid()]


def slice_of_series(path, series, k):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = CTImageStorage, meta.MediaStorageSOPInstanceUID, "CT"
    d.SeriesInstanceUID, d.FrameOfReferenceUID, d.InstanceNumber = UIDS[series], UIDS[0], k
    d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = 8, 8, 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 0
    d.PixelSpacing, d.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
    d.ImagePositionPatient, d.SliceThickness = [0, 0, float(k)], 1
    d.RescaleSlope, d.RescaleIntercept = 1, -1024
    d.PixelData = np.arange(64, dtype="<u2").tobytes()
    d.save_as(path, enforce_file_format=True)
