from dataclasses import replace

import pytest
import zmq

from fluoronav.stream.frame import Alert
from fluoronav.stream.pipeline.publisher import Publisher

RAISED = Alert("proximity/kwire/cord/1", 1, "raised", "medium", "proximity", "kwire", "cord", 2.0, 1.5, 2.5, "near")


@pytest.fixture
def publisher():
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        yield Publisher(socket, "carm0")


def test_an_alert_that_is_sent_again_keeps_its_frame_so_that_it_is_no_second_alert(publisher):
    """Regression: repeats had the newest frame's number, so one alert looked as if raised twice."""
    first = publisher.alert(RAISED, 163, 163_000)
    assert publisher.alert(RAISED, 171, 171_000) == first and first.seq == 163


def test_an_alert_that_changes_has_the_frame_of_the_change(publisher):
    publisher.alert(RAISED, 163, 163_000)
    changed = replace(RAISED, state="changed", priority="high")
    assert publisher.alert(changed, 170, 170_000).seq == 170 == publisher.alert(changed, 190, 190_000).seq


def test_an_alert_that_is_cleared_is_forgotten(publisher):
    publisher.alert(RAISED, 163, 163_000)
    assert publisher.alert(replace(RAISED, state="cleared"), 180, 180_000).seq == 180
    assert publisher.alert(RAISED, 200, 200_000).seq == 200
