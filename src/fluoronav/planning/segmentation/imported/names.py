"""What the values of a label map mean: a scheme, names in the file, or a file beside it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Literal

from fluoronav.case.compressed import inflated_start
from fluoronav.paths import regular_file
from fluoronav.planning.anatomy import by_name, labels_of_scheme, level_of
from fluoronav.planning.segmentation.engine import SegmentationError

# `totalsegmentator` is the numbering of this project and its data (labels.csv); TotalSegmentator 2 differs in 117.
ImportScheme = Literal["totalsegmentator", "totalsegmentator1", "totalsegmentator2", "verse"]
SCHEMES: tuple[ImportScheme, ...] = ("totalsegmentator", "totalsegmentator1", "totalsegmentator2", "verse")
# TotalSegmentator 1, class map "total_v1" of its map_to_binary.py (Apache-2.0).
_V1 = (
    "spleen kidney_right kidney_left gallbladder liver stomach aorta inferior_vena_cava portal_vein_and_splenic_vein "
    "pancreas adrenal_gland_right adrenal_gland_left lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right "
    "lung_middle_lobe_right lung_lower_lobe_right "
    + " ".join(f"vertebrae_L{n}" for n in range(5, 0, -1))
    + " "
    + " ".join(f"vertebrae_T{n}" for n in range(12, 0, -1))
    + " "
    + " ".join(f"vertebrae_C{n}" for n in range(7, 0, -1))
    + " esophagus trachea heart_myocardium heart_atrium_left heart_ventricle_left heart_atrium_right "
    "heart_ventricle_right pulmonary_artery brain iliac_artery_left iliac_artery_right iliac_vena_left "
    "iliac_vena_right small_bowel duodenum colon "
    + " ".join(f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13))
    + " humerus_left humerus_right scapula_left scapula_right clavicula_left clavicula_right femur_left femur_right "
    "hip_left hip_right sacrum face gluteus_maximus_left gluteus_maximus_right gluteus_medius_left "
    "gluteus_medius_right gluteus_minimus_left gluteus_minimus_right autochthon_left autochthon_right iliopsoas_left "
    "iliopsoas_right urinary_bladder"
).split()
_CARET = re.compile(rb'<Label\s+Key="(\d+)"[^>]*>\s*(?:<!\[CDATA\[)?([^\]<]+)')
_SLICER = re.compile(r"^Segment(\d+)_(Name|LabelValue):=(.*)$", re.MULTILINE)
_MOST_HEADER_BYTES = 1 << 18  # chosen: TotalSegmentator's 117 names take 10 kB
_MOST_NAME_BYTES = 1 << 20


def names_of_scheme(scheme: ImportScheme) -> dict[int, str]:
    """The name of each value by a scheme."""
    if scheme == "totalsegmentator1":
        return {k + 1: name for k, name in enumerate(_V1)}
    if scheme == "verse":
        return {value: s.name for value, s in labels_of_scheme("verse").items()}
    names = {value: s.name for value, s in labels_of_scheme("totalsegmentator").items()}
    if scheme == "totalsegmentator2":
        names = {value: name for value, name in names.items() if value <= 116} | {117: "costal_cartilages"}
    return names


def names_in_file(path: Path) -> dict[int, str]:
    """Names that a label map's own header holds: TotalSegmentator's NIfTI extension, or a segmentation of 3D Slicer."""
    start = inflated_start(regular_file(path), _MOST_HEADER_BYTES)
    if start[:4] == b"NRRD":
        header = start.split(b"\n\n", 1)[0].split(b"\r\n\r\n", 1)[0].decode("utf-8", "replace").replace("\r", "")
        parts: dict[str, dict[str, str]] = {}
        for number, key, value in _SLICER.findall(header):
            parts.setdefault(number, {})[key] = value.strip()
        return {
            int(p["LabelValue"]): p["Name"]
            for p in parts.values()
            if p.get("LabelValue", "").isdigit() and p.get("Name")
        }
    if start[344:347] != b"n+1" or len(start) < 352 or start[348] == 0:
        return {}
    return {int(key): name.decode("utf-8", "replace").strip() for key, name in _CARET.findall(start[352:])}


def names_beside(path: Path) -> Path | None:
    """The file beside a label map that names its values: the same name with .json or .csv."""
    stem = path.name.split(".")[0]
    for candidate in (f"{stem}.json", f"{stem}.csv"):
        if (path.parent / candidate).is_file():
            return path.parent / candidate
    return None


def names_from(path: Path) -> dict[int, str]:
    """The names that a JSON or CSV file gives.

    Parameters
    ----------
    path : Path
        JSON: {"1": "spleen"} or {"spleen": 1}. CSV: with a header; a column of names (name, structure or label_name)
        and one of values (id, label, value or index).

    Raises
    ------
    SegmentationError
    """
    try:
        if regular_file(path).stat().st_size > _MOST_NAME_BYTES:
            raise SegmentationError(f"{path}: is larger than {_MOST_NAME_BYTES} bytes; this is no table of names")
        text = path.read_text(encoding="utf-8-sig")
        found = _of_json(text) if path.suffix.lower() == ".json" else _of_csv(text)
    except (OSError, UnicodeDecodeError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, SegmentationError):
            raise
        raise SegmentationError(f"{path}: cannot be read as names of labels: {error}") from error
    if not found:
        raise SegmentationError(
            f"{path}: names no label; JSON must be {{'1': 'spleen'}}, CSV must have the columns id and name"
        )
    return found


def _of_json(text: str) -> dict[int, str]:
    content = json.loads(text)
    if isinstance(content, dict) and isinstance(content.get("labels"), dict):
        content = content["labels"]
    out = {}
    for key, value in content.items():
        if str(key).isdigit() and isinstance(value, str):
            out[int(key)] = value
        elif isinstance(value, int):
            out[value] = str(key)
    return {k: v for k, v in out.items() if k > 0}


def _of_csv(text: str) -> dict[int, str]:
    rows = list(csv.DictReader(text.splitlines()))
    columns = {c.strip().lower(): c for c in (rows[0] if rows else {}) if c}
    name = next((columns[c] for c in ("name", "structure", "label_name") if c in columns), None)
    value = next((columns[c] for c in ("id", "label", "value", "index") if c in columns), None)
    if name is None or value is None:
        return {}
    return {int(row[value]): row[name].strip() for row in rows if row[value].strip().isdigit() and int(row[value]) > 0}


def known_name(name: str) -> str:
    """A structure's name as the vocabulary has it; the name itself where it has none."""
    plain = re.sub(r"[\s\-]+", "_", name.strip())
    level = level_of(plain)
    if level is not None and f"vertebrae_{level}" in by_name():
        return f"vertebrae_{level}"
    lower = {known.lower(): known for known in by_name()}
    return lower.get(plain.lower(), plain[:64])
