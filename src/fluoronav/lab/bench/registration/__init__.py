"""The registration's bench: search, tracking, confidence, two views, narrow fields, bones, the real wrist."""

from fluoronav.lab.bench.registration.bench import bench_registration
from fluoronav.lab.bench.registration.report import table

__all__ = ["bench_registration", "table"]
