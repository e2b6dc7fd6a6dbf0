"""``questions.json`` of a case: what its last segmentation wants a person to answer, and what was answered."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from fluoronav.durable import written

QUESTIONS = "questions.json"


def read_questions(folder: Path) -> dict[str, Any]:
    """The content: ``revision``, ``questions``, ``warnings``, ``answered``; lists are empty where there is no file."""
    empty: dict[str, Any] = {"revision": 0, "questions": [], "warnings": [], "answered": []}
    try:
        content = json.loads((folder / QUESTIONS).read_bytes())
        return empty | {k: content[k] for k in empty if isinstance(content.get(k), type(empty[k]))}
    except (OSError, ValueError, AttributeError):
        return empty


def write_questions(folder: Path, content: dict[str, Any]) -> None:
    """Writes the file as a whole.

    Raises
    ------
    OSError
    """
    written(folder / QUESTIONS, (json.dumps(content, indent=1) + "\n").encode())


def answer(folder: Path, key: str, said: str, user: str) -> list[str]:
    """Notes a person's answer to the open questions with a key; the texts of these.

    Raises
    ------
    OSError
    """
    content = read_questions(folder)
    asked = [q for q in content["questions"] if isinstance(q, dict) and q.get("key") == key]
    if asked:
        at = datetime.now().astimezone().isoformat(timespec="seconds")
        content["questions"] = [q for q in content["questions"] if q not in asked]
        content["answered"] += [{**q, "answer": said, "answered_by": user, "answered_at": at} for q in asked]
        write_questions(folder, content)
    return [q["text"] for q in asked]


def ask_again(folder: Path, key: str) -> None:
    """Opens the last answered question with a key again, where its answer was taken back.

    Raises
    ------
    OSError
    """
    content = read_questions(folder)
    last = next((q for q in reversed(content["answered"]) if q.get("key") == key), None)
    if last is not None:
        content["answered"].remove(last)
        question = {k: v for k, v in last.items() if k not in ("answer", "answered_by", "answered_at")}
        content["questions"] = [question, *content["questions"]]
        write_questions(folder, content)
