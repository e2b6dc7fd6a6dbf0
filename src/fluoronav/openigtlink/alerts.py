"""The open alerts as texts, for clients that know nothing but texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class _Alert:
    priority: str
    state: str
    text: str

    @staticmethod
    def of(message: dict[str, Any]) -> _Alert:
        return _Alert(str(message["priority"]), str(message["state"]), str(message["text"]))

    def words(self, state: str = "") -> str:
        return f"{self.priority.upper()} {state or self.state}: {self.text}"


class AlertTexts:
    """Turns alerts, and the list of open ones in health, into what clients are told."""

    def __init__(self) -> None:
        self._open: dict[str, _Alert] = {}
        self._instance: str | None = None

    def take(self, message: dict[str, Any]) -> str:
        """The text of an alert; one without an id is told but not kept."""
        alert_id, alert = str(message.get("id", "")), _Alert.of(message)
        if alert_id and alert.state == "cleared":
            self._open.pop(alert_id, None)
        elif alert_id:
            self._open[alert_id] = alert
        return alert.words()

    def reconcile(self, health: dict[str, Any]) -> Iterator[str]:
        """The texts of what health changes: alerts that are no longer open, and open ones that were never told.

        Health without a list of alerts changes nothing.
        """
        listed = health.get("alerts")
        if not isinstance(listed, list):
            return
        instance, before = str(health.get("instance", "")), self._instance
        by_id = {str(a["id"]): _Alert.of(a) for a in listed}
        self._instance = instance
        for gone in [k for k in self._open if k not in by_id or before not in (None, instance)]:
            yield self._open.pop(gone).words("no longer open")
        for alert_id, alert in by_id.items():
            if alert_id not in self._open:
                yield alert.words()
            self._open[alert_id] = alert

    def open(self) -> list[str]:
        """The texts of all open alerts, the oldest first."""
        return [alert.words() for alert in self._open.values()]
