"""What the routes of each part of the API have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from aiohttp import web

from fluoronav.workspace.desk import Desk


class Routes(ABC):
    """Handlers of one part of the API; `add` puts them into an app.

    Parameters
    ----------
    desk : Desk
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    @abstractmethod
    def add(self, app: web.Application) -> None:
        """Adds the routes."""
