"""Codes of anatomical structures: SNOMED CT, as DICOM's context groups use it (PS3.16 CID 4031, 7153 and others).

A structure is found by its name in the case (`vertebrae_T8`, `kidney_left`). A name that is not here gets a code of
our own scheme, so that its meaning is still said.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from pydicom.sr.coding import Code

OWN_SCHEME = "99FLUORONAV"
ANATOMICAL = Code("123037004", "SCT", "Anatomical Structure")
_ALTERED = Code("49755003", "SCT", "Morphologically Altered Structure")
_SIDES = {"left": Code("7771000", "SCT", "Left"), "right": Code("24028007", "SCT", "Right")}
_ORDINALS = (
    "First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth", "Eleventh",
    "Twelfth",
)  # fmt: skip
_RIBS = (
    "48535007", "78247007", "25888004", "25523003", "15339008", "59558009", "24915002", "5953002", "22565002",
    "77644006", "58830002", "43993008",
)  # fmt: skip
_VERTEBRAE = {
    "C": ("14806007", "39976000", "113205007", "5329002", "36978003", "36054005", "87391001"),
    "T": (
        "64864005", "53733008", "1626008", "73071006", "56401006", "45296009", "62487009", "11068009", "82687006",
        "7610001", "12989004", "23215003",
    ),
    "L": ("66794005", "14293000", "36470004", "11994002", "49668003"),
    "S": ("65985001",),
}  # fmt: skip
_STRUCTURES = {
    "spleen": ("78961009", "Spleen"),
    "kidney": ("64033007", "Kidney"),
    "gallbladder": ("28231008", "Gallbladder"),
    "liver": ("10200004", "Liver"),
    "stomach": ("69695003", "Stomach"),
    "pancreas": ("15776009", "Pancreas"),
    "adrenal_gland": ("23451007", "Adrenal gland"),
    "lung_upper_lobe": ("45653009", "Upper lobe of lung"),
    "lung_lower_lobe": ("90572001", "Lower lobe of lung"),
    "lung_middle_lobe": ("72481006", "Middle lobe of right lung"),
    "esophagus": ("32849002", "Esophagus"),
    "trachea": ("44567001", "Trachea"),
    "thyroid_gland": ("69748006", "Thyroid gland"),
    "small_bowel": ("30315005", "Small Intestine"),
    "duodenum": ("38848004", "Duodenum"),
    "colon": ("71854001", "Colon"),
    "urinary_bladder": ("89837001", "Urinary bladder"),
    "prostate": ("41216001", "Prostate"),
    "sacrum": ("54735007", "Sacrum"),
    "heart": ("80891009", "Heart"),
    "aorta": ("15825003", "Aorta"),
    "pulmonary_vein": ("122972007", "Pulmonary vein"),
    "brachiocephalic_trunk": ("12691009", "Brachiocephalic artery"),
    "subclavian_artery": ("29700009", "Subclavian artery"),
    "common_carotid_artery": ("32062004", "Common carotid artery"),
    "brachiocephalic_vein": ("8887007", "Brachiocephalic vein"),
    "atrial_appendage": ("68786006", "Auricular appendage"),
    "superior_vena_cava": ("48345005", "Superior vena cava"),
    "inferior_vena_cava": ("64131007", "Inferior vena cava"),
    "portal_vein_and_splenic_vein": ("110765007", "Portal vein and splenic vein"),
    "iliac_artery": ("73634005", "Common iliac artery"),
    "iliac_vena": ("46027005", "Common iliac vein"),
    "humerus": ("85050009", "Humerus"),
    "scapula": ("79601000", "Scapula"),
    "clavicula": ("51299004", "Clavicle"),
    "femur": ("71341001", "Femur"),
    "hip": ("29836001", "Hip"),
    "radius": ("62413002", "Radius"),
    "ulna": ("23416004", "Ulna"),
    "tibia": ("12611008", "Tibia"),
    "fibula": ("87342007", "Fibula"),
    "patella": ("64234005", "Patella"),
    "carpal": ("83936004", "Carpus"),
    "spinal_cord": ("2748008", "Spinal cord"),
    "gluteus_maximus": ("181674001", "Gluteus maximus muscle"),
    "gluteus_medius": ("78333006", "Gluteus medius muscle"),
    "gluteus_minimus": ("75297007", "Gluteus minimus muscle"),
    "autochthon": ("244849004", "Deep muscle of back"),
    "iliopsoas": ("68455001", "Iliopsoas muscle"),
    "brain": ("12738006", "Brain"),
    "skull": ("89546000", "Skull"),
    "sternum": ("56873002", "Sternum"),
}


@dataclass(frozen=True)
class Anatomy:
    """What a structure is: category and type (PS3.16 CID 7150, 7151), and its side where it has one."""

    category: Code
    type: Code
    side: Code | None = None


def name_of(code: str, side: str = "") -> str | None:
    """The name of a structure by its SNOMED CT code and, where it has two, the code of its side; None for others."""
    for level, values in _VERTEBRAE.items():
        if code in values:
            return f"vertebrae_{level}{values.index(code) + 1}"
    sides = {value.value: name for name, value in _SIDES.items()}
    if code in _RIBS:
        return f"rib_{sides[side]}_{_RIBS.index(code) + 1}" if side in sides else None
    base = next((name for name, (value, _) in _STRUCTURES.items() if value == code), None)
    return f"{base}_{sides[side]}" if base is not None and side in sides else base


def anatomy_of(name: str) -> Anatomy:
    """The codes of a structure by its name in a case."""
    if found := re.fullmatch(r"vertebrae?_([CTLS])(\d+)", name):
        level, number = found[1], int(found[2])
        if 1 <= number <= len(_VERTEBRAE[level]):
            return Anatomy(ANATOMICAL, Code(_VERTEBRAE[level][number - 1], "SCT", f"{level}{number} vertebra"))
    if (found := re.fullmatch(r"rib_(left|right)_(\d+)", name)) and 1 <= int(found[2]) <= len(_RIBS):
        k = int(found[2]) - 1
        return Anatomy(ANATOMICAL, Code(_RIBS[k], "SCT", f"{_ORDINALS[k]} rib"), _SIDES[found[1]])
    stem, _, last = name.rpartition("_")
    side = _SIDES.get(last)
    base = stem if side is not None else name
    if base == "kidney_cyst":
        return Anatomy(_ALTERED, Code("367643001", "SCT", "Cyst"), side)
    if base in _STRUCTURES:
        value, meaning = _STRUCTURES[base]
        return Anatomy(ANATOMICAL, Code(value, "SCT", meaning), side)
    return Anatomy(ANATOMICAL, own_code(name))


def own_code(name: str) -> Code:
    """A code of our own scheme; its value follows from the name and has at most 16 characters (VR SH)."""
    value = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
    if not 0 < len(value) <= 16:
        value = hashlib.sha256(name.encode()).hexdigest()[:16].upper()
    return Code(value, OWN_SCHEME, name[:64])
