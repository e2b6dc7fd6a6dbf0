"""Colours of structures: the same in every case, and apart for neighbours."""

from __future__ import annotations

import colorsys

from fluoronav.planning.anatomy import vocabulary

# Hue of what surgeons know by a colour; saturation and value too. Chosen as in anatomical atlases.
_BY_KIND = {
    "vessel": (0.0, 0.85, 0.85),
    "nerve": (0.14, 0.8, 1.0),
    "lesion": (0.33, 0.9, 0.9),
    "implant": (0.55, 0.2, 0.9),
}
_BY_NAME = {"pulmonary_artery": (0.62, 0.6, 0.9), "inferior_vena_cava": (0.62, 0.8, 0.9)}
_GOLDEN = 0.61803398875  # steps of this share of a circle never come close to one another soon


def colour_of(label: int) -> str:
    """The colour of a label, "#rrggbb"."""
    known = vocabulary().get(label)
    hue, saturation, value = (label * _GOLDEN) % 1.0, 0.55, 0.95
    if known is not None:
        fixed = _BY_NAME.get(known.name) or _BY_KIND.get(known.kind)
        if fixed:
            hue, saturation, value = fixed
            hue = (hue + 0.04 * ((label * _GOLDEN) % 1.0)) % 1.0
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value))
    return f"#{red:02x}{green:02x}{blue:02x}"
