"""Scans that `fluoronav plan segment` refuses before it draws anything, and one that is long."""

import os
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import MRImageStorage
from tests.case.scans import patient, save, slices

from fluoronav.cli import main


def tilted():
    series = slices(patient())
    for k, d in enumerate(series):
        x, y, z = d.ImagePositionPatient
        d.ImagePositionPatient = [x, y + k * 2 * np.tan(np.deg2rad(12)), z]
    return series


def without_two_slices():
    return [d for k, d in enumerate(slices(patient())) if k not in (7, 8)]


def mr():
    series = slices(patient())
    for d in series:
        d.Modality, d.SOPClassUID = "MR", MRImageStorage
        d.file_meta.MediaStorageSOPClassUID = MRImageStorage
    return series


@pytest.mark.parametrize(
    ("scan", "said"),
    [(tilted, "tilted by 12.0 degrees"), (without_two_slices, "slices are missing"), (mr, "magnetic resonance")],
)
@pytest.mark.parametrize("engine", ["atlas", "threshold"])
def test_a_tilted_gantry_missing_slices_and_an_mr_are_refused_and_nothing_is_written(
    tmp_path, capsys, scan, said, engine
):
    folder = save(scan(), tmp_path / "series")
    more = ["--low-hu", "300", "--name", "implant"] if engine == "threshold" else []
    command = ["plan", "segment", str(folder), "--engine", engine, *more, "--out", str(tmp_path / "case")]
    assert main(command) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "case").exists()


# Peak memory of a verb, MB: its own process says it as it ends.
_PEAK = """
import resource, sys
from fluoronav.cli import main
status = main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
sys.exit(status)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_a_scan_of_a_thousand_slices_is_segmented_in_bounded_memory(tmp_path):
    def peak(slices):
        hu = np.full((slices, 192, 192), -1000, np.int16)
        hu[:, 20:170, 20:170] = 40
        hu[slices // 2, 90:100, 90:100] = 3000
        image = sitk.GetImageFromArray(hu)
        image.SetSpacing((2.0, 2.0, 1.0))
        path = tmp_path / f"{slices}.nrrd"
        sitk.WriteImage(image, str(path))
        command = ["plan", "segment", str(path), "--engine", "threshold", "--low-hu", "2500", "--name", "implant"]
        out = subprocess.run(
            [sys.executable, "-c", _PEAK, *command, "--out", str(tmp_path / f"case{slices}")],
            capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert out.returncode == 0, out.stderr
        return int(out.stdout.split("peak")[1]), hu.nbytes / 2**20

    short, _ = peak(50)
    long, size = peak(1000)
    # The scan itself (2 bytes a voxel), its labels, and what is made beside them.
    assert long - short < 5 * size
