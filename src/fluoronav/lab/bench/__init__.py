"""Benches: each prints a table for people and writes JSON for machines. None asserts anything about time."""
