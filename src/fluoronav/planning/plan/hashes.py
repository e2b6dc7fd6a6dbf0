"""Hashes of what a plan was made on; the stream checks the same ones (:mod:`fluoronav.case.approved_plan`)."""

from fluoronav.case.hashes import volume_hash

__all__ = ["volume_hash"]
