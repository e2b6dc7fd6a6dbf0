"""The enhancement's bench: denoising by dose and filter, and the time of each stage."""

from fluoronav.lab.bench.enhancement.bench import bench_enhancement, table

__all__ = ["bench_enhancement", "table"]
