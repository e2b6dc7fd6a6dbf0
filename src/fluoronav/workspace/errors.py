"""What a request to the workspace may fail with; each kind has one HTTP status."""

from __future__ import annotations

from typing import Any


class WorkspaceError(ValueError):
    """A request that cannot be done; the text says why, and what to do.

    Parameters
    ----------
    text : str
    **more : JSON values
        Sent beside the text.
    """

    status = 400

    def __init__(self, text: str, **more: Any) -> None:
        super().__init__(text)
        self.more = more


class Unknown(WorkspaceError):
    """There is no such case, revision or structure."""

    status = 404


class OutOfStep(WorkspaceError):
    """The request is about a state that is no longer the server's, or somebody else's work stands against it."""

    status = 409


class Refused(WorkspaceError):
    """A rule stands against it."""

    status = 422


class NotInstalled(WorkspaceError):
    """A part that this installation does not have."""

    status = 501


class DiskFull(WorkspaceError):
    """It could not be written; nothing was changed."""

    status = 507
