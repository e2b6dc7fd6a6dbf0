"""The open alerts of the running pipeline; those of a pipeline that has ended are dropped."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

# Ended pipelines that are remembered: late messages of these are ignored.
_KEPT_INSTANCES = 16
_RANK = {"high": 2, "medium": 1, "low": 0}
_STATES = ("raised", "changed", "cleared", "acknowledged")


class OpenAlerts:
    """Keeps the open alerts by id, the oldest first.

    The list ``alerts`` in health is complete for its ``instance``. For a pipeline that sends no list the single alerts
    count.

    Parameters
    ----------
    most : int
        Maximum number; the least urgent and oldest are dropped first.
    """

    def __init__(self, most: int) -> None:
        self.instance = ""  # of the running pipeline; empty where it sends none
        self._most = most
        self._open: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._ended: deque[str] = deque(maxlen=_KEPT_INSTANCES)
        self._named: set[str] = set()  # ids that alerts have named since the last health

    def __len__(self) -> int:
        return len(self._open)

    def all(self) -> list[dict[str, Any]]:
        """Every open alert, the oldest first."""
        return list(self._open.values())

    def is_ended(self, message: dict[str, Any]) -> bool:
        """Whether a message is from a pipeline that another has replaced."""
        return message.get("instance") in self._ended

    def take(self, alert: dict[str, Any]) -> bool:
        """Takes an alert.

        Returns
        -------
        bool
            A new pipeline has replaced the one before, whose alerts are dropped.

        Raises
        ------
        ValueError
            It is not an alert.
        """
        if not _is_alert(alert):
            raise ValueError("not an alert")
        anew = self._begun(alert)
        name = alert["id"]
        self._named.add(name)
        if alert["state"] == "cleared":
            self._open.pop(name, None)
        elif alert["state"] == "acknowledged" and name in self._open:
            # That message's text tells who has acknowledged; the alert keeps its own text.
            self._open[name] = alert | {"text": self._open[name]["text"]}
        else:
            self._open[name] = alert
        self._bound()
        return anew

    def reconcile(self, health: dict[str, Any]) -> bool:
        """Takes the open alerts of a health message; returns the same as `take`."""
        anew = self._begun(health)
        listed = health.get("alerts")
        if not isinstance(listed, list):
            return anew
        now = OrderedDict((a["id"], a) for a in listed if _is_alert(a) and a["state"] != "cleared")
        for name in self._named:
            # Health may have been written before the alert was sent: the alert is kept until the next health.
            held = self._open.get(name)
            if held is None:
                now.pop(name, None)
            elif name in now:
                now[name] = _later(held, now[name])
            elif _time(held, "t_raised") > _time(health, "t"):
                now[name] = held
        self._named.clear()
        self._open = now
        self._bound()
        return anew

    def _begun(self, message: dict[str, Any]) -> bool:
        instance = message.get("instance")
        if not isinstance(instance, str) or instance in ("", self.instance):
            return False
        anew = bool(self.instance)
        if anew:
            self._ended.append(self.instance)
            self._open.clear()
            self._named.clear()
        self.instance = instance
        return anew

    def _bound(self) -> None:
        while len(self._open) > self._most:
            self._open.pop(min(self._open, key=lambda name: _RANK[self._open[name]["priority"]]))
        if len(self._named) > self._most:
            self._named.clear()


def _is_alert(alert: Any) -> bool:
    return (
        isinstance(alert, dict)
        and all(isinstance(alert.get(key), str) for key in ("id", "state", "priority", "text"))
        and alert["state"] in _STATES
        and alert["priority"] in _RANK
    )


def _later(held: dict[str, Any], listed: dict[str, Any]) -> dict[str, Any]:
    """Which of two states of one alert counts when their order is unknown: the more urgent."""
    higher = _RANK[held["priority"]] - _RANK[listed["priority"]]
    return held if higher > 0 or (higher == 0 and held["state"] == "acknowledged") else listed


def _time(message: dict[str, Any], key: str) -> int:
    value = message.get(key)
    return value if isinstance(value, int) else 0
