"""What tests of the display send in place of a pipeline is what a pipeline may send."""

import msgspec
import pytest
from tests.display import pipeline_stand_in as stand_in

from fluoronav.wire import Alert, Health, Overlay


@pytest.mark.parametrize(
    ("sample", "schema"),
    [
        (stand_in.overlay(7), Overlay),
        (stand_in.alert(1, "high"), Alert),
        (stand_in.health(), Health),
    ],
)
def test_a_sample_fits_its_schema_and_has_no_key_of_its_own(sample, schema):
    assert msgspec.to_builtins(msgspec.convert(sample, schema)) == sample
