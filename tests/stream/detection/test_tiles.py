"""Tiles of a frame: that they cover it, and that each is looked at within the limit."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluoronav.stream.detection.network_input import MAP_PX
from fluoronav.stream.detection.tiles import LIMITS, TILE_MAP_PX, TILES, TileSchedule, tiles_at

WHOLE = np.ones((MAP_PX, MAP_PX), bool)
MS = 1_000_000


@given(st.floats(0, MAP_PX - 1), st.floats(0, MAP_PX - 1))
@example(58.5, 0.0)
@example(0.0, 68.5)
def test_every_place_of_the_maps_is_proposed_and_written_by_a_tile(x, y):
    shown = tiles_at(x, y)
    assert shown
    for k in shown:
        # A peak's pixel is compared with three to each side, which this look has filled as well.
        for at, filled in zip((y, x), TILES[k].written, strict=True):
            pixel = int(np.floor(at + 0.5))
            assert filled.start <= max(pixel - 3, 0) and min(pixel + 3, MAP_PX - 1) < filled.stop


@pytest.mark.parametrize("tile", TILES)
def test_what_a_tile_writes_comes_from_the_same_place_of_its_own_maps(tile):
    maps = np.zeros((MAP_PX, MAP_PX))
    own = np.arange(TILE_MAP_PX)[:, None] * 1000.0 + np.arange(TILE_MAP_PX)
    maps[tile.written] = own[tile.source]
    row, col = tile.written[0].start, tile.written[1].start
    assert maps[row, col] == 1000 * (row - tile.row // 2) + col - tile.col // 2


frames = st.lists(
    st.tuples(st.floats(4, 250), st.sets(st.integers(0, len(TILES) - 1))), min_size=1, max_size=40
)  # ms since the frame before, and the tiles that tracks need looked at


@given(frames, st.sets(st.integers(0, len(TILES) - 1), min_size=1))
def test_after_every_frame_all_of_the_field_was_looked_at_within_the_limit(frames, in_field):
    mask = np.zeros((MAP_PX, MAP_PX), bool)
    for k in in_field:
        # The corner that no other tile shows.
        mask[-1 if TILES[k].row else 0, -1 if TILES[k].col else 0] = True
    schedule, looked, now_ms = TileSchedule(), dict.fromkeys(in_field, -np.inf), 1000.0
    schedule.set_field(mask)
    assert schedule.outside == [k for k in range(len(TILES)) if k not in in_field]
    for period_ms, wanted in frames:
        now_ms += period_ms
        schedule.begin(round(now_ms * MS))
        tiles = schedule.due(wanted)
        chosen = set(in_field) if tiles is None else set(tiles)
        assert chosen <= in_field and (wanted & in_field) <= chosen
        assert tiles is None or len(tiles) <= LIMITS.max_tiles
        schedule.looked(chosen)
        looked |= dict.fromkeys(chosen, now_ms)
        assert all(now_ms - at_ms <= LIMITS.overdue_ms + 1e-3 for at_ms in looked.values())


@given(st.floats(4, 37))
def test_at_30_frames_a_second_and_more_one_tile_a_frame_is_enough(period_ms):
    schedule, now_ms = TileSchedule(), 0.0
    schedule.set_field(WHOLE)
    for k in range(60):
        now_ms += period_ms
        schedule.begin(round(now_ms * MS))
        tiles = schedule.due(())
        assert (tiles is None) == (k == 0), "the first frame is looked at as a whole, and none after it"
        schedule.looked(range(len(TILES)) if tiles is None else tiles)
        assert tiles is None or len(tiles) == 1


def test_slow_frames_have_two_tiles_and_very_slow_ones_are_looked_at_as_a_whole():
    for period_ms, count in ((66.7, 2), (133.0, None)):
        schedule = TileSchedule()
        schedule.set_field(WHOLE)
        for k in range(10):
            schedule.begin(round(k * period_ms * MS))
            tiles = schedule.due(())
            schedule.looked(range(len(TILES)) if tiles is None else tiles)
            if k > 1:
                assert (None if tiles is None else len(tiles)) == count


def test_frames_of_one_time_have_each_tile_in_its_turn():
    schedule, seen = TileSchedule(), []
    schedule.set_field(WHOLE)
    for _ in range(9):
        schedule.begin(0)
        tiles = schedule.due(())
        schedule.looked(range(len(TILES)) if tiles is None else tiles)
        seen += tiles or []
    assert sorted(seen) == sorted([*range(len(TILES))] * 2)


def test_a_clock_that_was_set_back_calls_for_a_whole_look():
    schedule = TileSchedule()
    schedule.set_field(WHOLE)
    schedule.begin(10_000 * MS)
    schedule.looked(range(len(TILES)))
    schedule.begin(1_000 * MS)
    assert schedule.due(()) is None


def test_a_frame_without_any_field_has_no_tile():
    schedule = TileSchedule()
    schedule.set_field(np.zeros_like(WHOLE))
    schedule.begin(MS)
    assert schedule.due({0, 1}) == [] and not schedule.overdue
