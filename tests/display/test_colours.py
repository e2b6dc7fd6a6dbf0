"""The colours of the picture are told apart by every kind of colour vision, and green means clear alone."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import fluoronav.display

PAGE = Path(fluoronav.display.__file__).parent / "page"
CONSTANTS = (PAGE / "constants.js").read_text()

# Machado, Oliveira and Fernandes, A physiologically-based model for simulation of color vision deficiency, IEEE TVCG 15
# (2009), severity 1; they apply to linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Linear sRGB to XYZ, D65 (IEC 61966-2-1).
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def colour(name):
    return re.search(rf'{name} = "(#[0-9a-f]{{6}})"', CONSTANTS)[1]


def level(name):
    return re.search(rf'LEVEL_COLOUR = {{.*{name}: "(#[0-9a-f]{{6}})"', CONSTANTS)[1]


MEANINGS = {
    "bone": colour("BONE_COLOUR"), "nerve, vessel, no-go": colour("GUARDED_COLOUR"), "plan": colour("PLAN_COLOUR"),
    "instrument": colour("SHAFT_COLOUR"), "danger": level("danger"), "caution": level("caution"),
    "clear": level("clear"),
}  # fmt: skip


def linear(hex_colour):
    c = np.array([int(hex_colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    t = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(one, other):
    """The difference of two colours (Sharma, Wu and Dalal, Color Research and Application 30, 2005)."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25**7))
    c1, c2 = np.hypot(g * a1, b1), np.hypot(g * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, g * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    big_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    light, c, h = (l1 + l2) / 2, (c1 + c2) / 2, (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    cos = [np.cos(np.radians(k * h + by)) for k, by in ((1, -30), (2, 0), (3, 6), (4, -63))]
    t = 1 - 0.17 * cos[0] + 0.24 * cos[1] + 0.32 * cos[2] - 0.2 * cos[3]
    sl, sc, sh = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2), 1 + 0.045 * c, 1 + 0.015 * c * t
    turned = -2 * np.sqrt(c**7 / (c**7 + 25**7)) * np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2))))
    dl, dc, dh = (l2 - l1) / sl, (c2 - c1) / sc, big_h / sh
    return float(np.sqrt(dl**2 + dc**2 + dh**2 + turned * dc * dh))


def test_the_difference_of_colours_is_that_of_the_published_pairs():
    # Pairs 1 and 17 of Sharma, Wu and Dalal's table.
    assert ciede2000((50, 2.6772, -79.7751), (50, 0, -82.7485)) == pytest.approx(2.0425, abs=1e-4)
    assert ciede2000((50, 2.5, 0), (73, 25, -18)) == pytest.approx(27.1492, abs=1e-4)


@pytest.mark.parametrize("vision", VISIONS)
def test_no_two_meanings_look_alike(vision):
    seen = {name: lab(VISIONS[vision] @ linear(c)) for name, c in MEANINGS.items()}
    differences = {pair: ciede2000(seen[pair[0]], seen[pair[1]]) for pair in combinations(seen, 2)}
    assert min(differences.values()) >= 13, min(differences, key=differences.get)


def luminance(rgb):
    return float(TO_XYZ[1] @ rgb)


@pytest.mark.parametrize("meaning", MEANINGS)
def test_every_line_has_contrast_to_its_border_even_where_the_picture_is_white(meaning):
    opacity = float(re.search(r'CASING = "rgb\(0 0 0 / (\d+)%\)"', CONSTANTS)[1]) / 100
    border = linear(f"#{round(255 * (1 - opacity)):02x}" + f"{round(255 * (1 - opacity)):02x}" * 2)
    assert (luminance(linear(MEANINGS[meaning])) + 0.05) / (luminance(border) + 0.05) >= 4.5


def test_green_is_for_clear_alone():
    for name, c in MEANINGS.items():
        _, a, b = lab(linear(c))
        hue = np.degrees(np.arctan2(b, a)) % 360
        assert (np.hypot(a, b) > 20 and 110 < hue < 190) == (name == "clear"), name
