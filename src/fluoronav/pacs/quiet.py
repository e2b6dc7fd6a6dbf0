"""Keeps the libraries' messages out of the logs: they quote names, IDs and UIDs of patients."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Silences pydicom, pynetdicom, SimpleITK's and httpx's messages; what matters, the node says in its own words."""
    for name in ("pydicom", "pynetdicom", "httpx", "httpcore", "hl7", "python_multipart"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    warnings.filterwarnings("ignore", module=r"pydicom|pynetdicom|highdicom")
