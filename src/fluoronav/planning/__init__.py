"""Preoperative planning: segmentation, measurements, simulated surgery, and the plan that guidance loads."""
