"""The bench of segmentations runs, and times both ways of encoding."""

from fluoronav.lab.bench.pacs_objects import measure_objects


def test_both_encodings_are_timed():
    seconds = measure_objects(side=24, structures=3)
    assert seconds.keys() == {"seg_binary_s", "seg_labelmap_s"} and all(s > 0 for s in seconds.values())
