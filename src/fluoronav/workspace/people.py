"""Who uses the workspace: each user has a key, which stays the same after a restart."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from fluoronav.durable import written

_NAME = re.compile(r"[^\x00-\x1f\x7f/\\]{1,64}")
FOLDER = ".workspace"  # in the case store


class People:
    """The users of this workspace.

    Parameters
    ----------
    names : sequence of str
    file : Path
        Holds their keys, readable by this computer's user alone; written where a name is new.

    Raises
    ------
    ValueError
        A name that cannot be one, or a file that holds no keys.
    """

    def __init__(self, names: Sequence[str], file: Path) -> None:
        for name in names:
            if not _NAME.fullmatch(name) or not name.strip():
                raise ValueError(f"--user {name!r}: a name is 1 to 64 characters without / and \\")
        known: dict[str, str] = {}
        if file.exists():
            try:
                known = {str(k): str(v) for k, v in json.loads(file.read_bytes()).items()}
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{file}: holds no keys ({error}); remove it, and new ones are drawn") from error
        missing = [n for n in names if n not in known]
        if missing:
            known |= {n: secrets.token_urlsafe(18) for n in missing}
            written(file, json.dumps(known, indent=1).encode())
        self.keys = {n: known[n] for n in names}

    def of(self, key: str) -> str | None:
        """The user whose key it is; every key is compared, so that time tells nothing."""
        found = None
        for name, own in self.keys.items():
            if secrets.compare_digest(own.encode(), key.encode()):
                found = name
        return found


def folder_name(user: str) -> str:
    """A user's name as the name of a folder: readable, and different for different users."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", user).strip("-")[:32] or "user"
    return f"{plain}-{hashlib.sha256(user.encode()).hexdigest()[:8]}"
