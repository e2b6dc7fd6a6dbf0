"""During surgery: live frames in, one overlay each out. The stages meet in `frame.py` and run in `pipeline/`."""
