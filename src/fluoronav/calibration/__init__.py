"""Calibration of what surrounds the patient: tools, and what a tracker says of them."""
