"""Pedicle screws and rods as bars."""

import numpy as np
import pytest

from fluoronav.lab.spinal_hardware import SIZES, construct


def test_screws_have_heads_behind_their_entries_and_rods_join_the_heads_of_a_side():
    towards = np.array([0.0, -40.0, 0.0])
    side = [(np.array([15.0, 20.0, z]), np.array([15.0, 20.0, z]) + towards) for z in (60.0, 0.0, 30.0)]
    bars = construct([side, [(e * [-1, 1, 1], t * [-1, 1, 1]) for e, t in side]])
    rods = [b for b in bars if b.radius_mm == SIZES.rod_mm / 2]
    heads = [b for b in bars if b.radius_mm == SIZES.head_mm / 2]
    assert (len(bars), len(heads), len(rods)) == (16, 6, 4)
    assert sum(np.linalg.norm(b.to_ct - b.from_ct) for b in rods) == pytest.approx(2 * 60)
    assert all(b.from_ct[1] == pytest.approx(20 + SIZES.head_long_mm) for b in heads)
    assert all(b.from_ct[1] == b.to_ct[1] == pytest.approx(20 + SIZES.head_long_mm / 2) for b in rods)
