"""Names of structures in the schemes that label maps come in."""

import pytest

from fluoronav.planning.anatomy import labels_of_scheme, level_of, meant, mirrored, vertebra, vocabulary


def test_verse_counts_from_the_head_and_has_its_own_numbers_for_odd_vertebrae():
    verse = labels_of_scheme("verse")
    assert [verse[k].name for k in (1, 8, 19, 20, 25, 28)] == [
        f"vertebrae_{level}" for level in ("C1", "T1", "T12", "L1", "L6", "T13")
    ]


@pytest.mark.parametrize("name", ["vertebrae_T8", "vertebra_t8", "T8"])
def test_a_level_is_known_by_its_usual_names(name):
    assert level_of(name) == "T8"


def test_a_word_that_is_no_level_is_none_and_an_unknown_level_is_refused():
    assert level_of("rib_left_8") is None
    with pytest.raises(ValueError, match="C1 to C7"):
        vertebra("T15")


def test_the_other_side_of_a_structure_is_in_the_vocabulary_too():
    names = {s.name for s in vocabulary().values()}
    assert {mirrored(n) for n in names} <= names
    assert mirrored("rib_left_4") == "rib_right_4"
    assert mirrored("lung_middle_lobe_right") == "lung_middle_lobe_right"


@pytest.mark.parametrize(
    ("name", "there", "found"),
    [
        ("T8", ["aorta", "vertebrae_T8"], "vertebrae_T8"),
        ("vertebra_t8", ["vertebrae_T8"], "vertebrae_T8"),
        ("T8", ["T8", "vertebrae_T8"], "T8"),
        ("aorta", ["aorta"], "aorta"),
        ("aorta", ["vertebrae_T8"], None),
        ("T9", ["vertebrae_T8"], None),
    ],
)
def test_a_name_means_itself_or_the_vertebra_of_its_level(name, there, found):
    assert meant(name, there) == found
