"""Simulated surgery: cuts, moved pieces, resections, implants."""
