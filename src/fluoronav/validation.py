"""What is wrong with a value or a file, as one line for people."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fluoronav.paths import regular_file

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError  # the command line asks for endpoints, and must not wait for it

    Schema = TypeVar("Schema", bound=BaseModel)

_ENDPOINT = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s:/\[\]]+):(\d{1,5}|\*)|ipc://.+")


def checked_endpoint(text: str) -> str:
    """A ZeroMQ endpoint as it is, ``tcp://host:port`` or ``ipc://path``.

    Raises
    ------
    ValueError
        It is none; the text says what one looks like.
    """
    return _checked(text, any_port=False)


def checked_endpoint_to_bind(text: str) -> str:
    """The same, where the port may be ``*``: a free one is taken."""
    return _checked(text, any_port=True)


def _checked(text: str, *, any_port: bool) -> str:
    match = _ENDPOINT.fullmatch(text)
    port = None if match is None else match[2]
    is_port = port is None or (any_port if port == "*" else 0 < int(port) < 65536)
    if match is None or not is_port:
        raise ValueError(f"{text!r} is not an endpoint: give tcp://HOST:PORT (a port from 1 to 65535) or ipc://PATH")
    return text


def read_yaml_of(
    path: Path, schema: type[Schema], refused: type[ValueError], *, most_bytes: int, what: str, advice: str = ""
) -> Schema:
    """A YAML file as an instance of its schema.

    Parameters
    ----------
    path : Path
    schema : type of pydantic.BaseModel
    refused : type of ValueError
        Raised where the file is larger, cannot be read, or breaks the schema; the text names the file and the field.
    most_bytes : int
    what : str
        What the file is, such as "plan".
    advice : str
        What to do about a file that cannot be read.
    """
    import yaml
    from pydantic import ValidationError

    try:
        if regular_file(path).stat().st_size > most_bytes:
            raise refused(f"{path}: is larger than {most_bytes} bytes; this is no {what}")
        return schema.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise refused(f"{path}: {first_error(error)}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise refused(f"{path}: cannot be read as a {what}: {error}{'. ' if advice else ''}{advice}") from error


def first_error(
    error: ValidationError, *, whole: str = "", unknown_key: str = "unknown key", shows_value: bool = False
) -> str:
    """The first problem of a file, as one line that starts with the field: ``plan.0.name: Field required``.

    Parameters
    ----------
    error : ValidationError
    whole : str
        What is said in place of the field where the file as a whole is meant.
    unknown_key : str
        What is said of a key that is not in the schema.
    shows_value : bool
        Whether the line ends with the value, where that is a number or a text.
    """
    first = error.errors()[0]
    where = ".".join(str(x) for x in first["loc"]) or whole
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        text = unknown_key
    elif first["type"] in ("model_type", "dict_type"):
        text = f"must hold a mapping of keys, not {type(first['input']).__name__}"
    if shows_value and isinstance(first["input"], int | float | str) and first["input"] != "":
        text += f" (is {str(first['input'])[:40]})"
    if error.error_count() > 1:
        text += f" (and {error.error_count() - 1} more)"
    return f"{where}: {text}" if where else text
