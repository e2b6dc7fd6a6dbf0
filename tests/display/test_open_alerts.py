"""The open alerts: those of the running pipeline, none of one that has ended."""

import pytest
from tests.display.pipeline_stand_in import alert, health

from fluoronav.display.open_alerts import OpenAlerts

LATER = 2_000_000_000_000_000_000


def ids(alerts):
    return [(a["id"], a["state"]) for a in alerts.all()]


def listed(*alerts, instance="one", **changes):
    return health(alerts=list(alerts), instance=instance, **changes)


def test_the_list_in_health_is_complete():
    alerts = OpenAlerts(8)
    alerts.take(alert(1, "high"))
    alerts.take(alert(2, "low"))
    alerts.reconcile(listed(alert(2, "low"), alert(3, "medium", "acknowledged"), alert(4, "high", "cleared")))
    assert ids(alerts) == [("a2", "raised"), ("a3", "acknowledged")]


def test_an_alert_that_is_newer_than_health_stays_until_the_next():
    alerts = OpenAlerts(8)
    alerts.take(alert(1, "high", t_raised=LATER))
    alerts.reconcile(listed())
    assert ids(alerts) == [("a1", "raised")]
    alerts.reconcile(listed())
    assert ids(alerts) == [], "whatever its clock says"


def test_an_older_list_does_not_undo_a_newer_alert():
    alerts = OpenAlerts(8)
    for a in (alert(1, "high"), alert(1, "high", "cleared"), alert(2, "medium"), alert(2, "high", "changed")):
        alerts.take(a)
    alerts.take(alert(3, "low"))
    alerts.take(alert(3, "low", "acknowledged", "acknowledged by Dr. Test"))
    old = alert(1, "high"), alert(2, "medium"), alert(3, "low")
    alerts.reconcile(listed(*old))
    assert ids(alerts) == [("a2", "changed"), ("a3", "acknowledged")]
    assert [a["priority"] for a in alerts.all()] == ["high", "low"]
    assert alerts.all()[1]["text"].startswith("kwire is"), "what there is to see stays"
    alerts.reconcile(listed(*old))
    assert len(alerts) == 3, "and what is said again is believed"


def test_a_new_instance_drops_the_old_ones_alerts_and_its_late_messages_are_ignored():
    alerts = OpenAlerts(8)
    assert not alerts.reconcile(listed(alert(1, "high")))
    late = alert(2, "high", instance="one")
    assert alerts.reconcile(health(instance="two")) and ids(alerts) == []
    assert alerts.is_ended(late) and alerts.is_ended(listed(alert(1, "high")))
    assert not alerts.reconcile(health(instance="two"))
    assert alerts.take(alert(3, "low", instance="three")) and ids(alerts) == [("a3", "raised")]


def test_without_a_list_in_health_the_single_alerts_count():
    alerts = OpenAlerts(8)
    alerts.take(alert(1, "high"))
    alerts.reconcile(health())
    assert ids(alerts) == [("a1", "raised")]
    alerts.take(alert(1, "high", "cleared"))
    assert ids(alerts) == []


def test_the_number_of_alerts_is_bounded_and_urgent_ones_are_kept():
    alerts = OpenAlerts(4)
    alerts.take(alert(0, "high"))
    for k in range(1, 20):
        alerts.take(alert(k, "low"))
    assert len(alerts) == 4 and "a0" in dict(ids(alerts))


@pytest.mark.parametrize("wrong", [{"id": ["a"]}, {"state": "gone"}, {"priority": "urgent"}, {"text": None}])
def test_a_malformed_alert_is_refused_and_ignored_in_a_list(wrong):
    alerts = OpenAlerts(4)
    with pytest.raises(ValueError, match="not an alert"):
        alerts.take(alert(1, "high") | wrong)
    alerts.reconcile(listed(alert(1, "high") | wrong, alert(2, "low"), "nonsense", None))
    assert ids(alerts) == [("a2", "raised")]
