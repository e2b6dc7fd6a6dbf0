"""What pydantic found wrong with a file, as one line for people."""

from __future__ import annotations

from pydantic import ValidationError


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
    text = unknown_key if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    if shows_value and isinstance(first["input"], int | float | str) and first["input"] != "":
        text += f" (is {str(first['input'])[:40]})"
    if error.error_count() > 1:
        text += f" (and {error.error_count() - 1} more)"
    return f"{where}: {text}" if where else text
