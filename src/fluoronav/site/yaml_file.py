"""YAML files that a person writes for an installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_mapping(path: Path, refused: type[ValueError], advice: str = "") -> dict[Any, Any]:
    """The mapping that a file holds.

    Parameters
    ----------
    path : Path
    refused : type of ValueError
        Raised where the file cannot be read, is not valid YAML, or holds no mapping; the text names the file.
    advice : str
        What to do about a file that cannot be read.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise refused(f"{path}: cannot be read: {error}{'; ' if advice else ''}{advice}") from error
    except yaml.YAMLError as error:
        raise refused(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise refused(f"{path}: must hold a mapping of keys, not {type(content).__name__}")
    return content
