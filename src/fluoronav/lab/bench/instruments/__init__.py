"""The instruments' bench: detections, tips, real frames, motion, depth, drift and alerts."""

from fluoronav.lab.bench.instruments.bench import bench_instruments, unseen_backgrounds
from fluoronav.lab.bench.instruments.figures import compared
from fluoronav.lab.bench.instruments.report import table

__all__ = ["bench_instruments", "compared", "table", "unseen_backgrounds"]
