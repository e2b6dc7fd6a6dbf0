"""Why an X-ray file cannot be used."""


class XrayFileError(ValueError):
    """A frame that cannot be used; the text names the file, what is wrong and what to do."""
