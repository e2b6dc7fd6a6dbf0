"""Pseudonyms: names that only who has the site key can make, the same for the same patient and the same UID.

HMAC-SHA256 (RFC 2104) under keys that are derived from the site key by HKDF (RFC 5869), one for each purpose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fluoronav.paths import regular_file
from fluoronav.site.init import KEY_BYTES

_PATIENT_CHARS = 16  # 80 bits; chosen: no two of a hospital's patients meet, and a person can read it out
_HASH_CHARS = 32
_NONCE_BYTES = 12  # NIST SP 800-38D


class SiteKeyError(RuntimeError):
    """A site key that cannot be used; the text names the file and what to do."""


class Pseudonyms:
    """Makes pseudonyms, and seals what they stand for.

    Parameters
    ----------
    key : bytes
        The site key.
    """

    def __init__(self, key: bytes) -> None:
        self._patients = _derived(key, b"patients")
        self._uids = _derived(key, b"uids")
        self._names = _derived(key, b"names of files and rows")
        self._seal = AESGCM(_derived(key, b"identities"))

    @classmethod
    def load(cls, path: Path) -> Pseudonyms:
        """Reads the site key.

        Raises
        ------
        SiteKeyError
        """
        try:
            key = regular_file(path).read_bytes()
        except OSError as error:
            raise SiteKeyError(f"{path}: the site key cannot be read: {error}; `site init` makes one") from error
        if len(key) != KEY_BYTES:
            raise SiteKeyError(f"{path}: has {len(key)} bytes; a site key has {KEY_BYTES}. Put the right one back")
        return cls(key)

    def patient(self, issuer: str, patient_id: str) -> str:
        """The pseudonym of a patient: ``P`` and 16 letters and digits."""
        digest = self._digest(self._patients, f"{issuer.strip()}\0{patient_id.strip()}")
        return "P" + base64.b32encode(digest).decode()[:_PATIENT_CHARS]

    def uid(self, uid: str) -> str:
        """The UID that stands for another: ``2.25.`` and 124 bits (PS3.5 B.2)."""
        return f"2.25.{int.from_bytes(self._digest(self._uids, uid)) >> 132}"

    def name(self, uid: str) -> str:
        """What files and rows are named by in place of a UID: 32 hexadecimal digits."""
        return self._digest(self._names, uid).hex()[:_HASH_CHARS]

    def sealed(self, key: str, content: bytes) -> bytes:
        """Encrypts what stands behind a pseudonym (AES-256-GCM); it opens under the same key alone."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._seal.encrypt(nonce, content, key.encode())

    def opened(self, key: str, sealed: bytes) -> bytes:
        """The inverse of :meth:`sealed`; raises :class:`SiteKeyError` under another site key."""
        try:
            return self._seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key.encode())
        except InvalidTag as error:
            raise SiteKeyError(
                "the table of identities was sealed with another site key, or was changed: put the key back that the "
                "site was set up with"
            ) from error

    @staticmethod
    def _digest(key: bytes, text: str) -> bytes:
        return hmac.digest(key, text.encode(), hashlib.sha256)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"fluoronav " + purpose).derive(key)
