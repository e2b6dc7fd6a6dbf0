"""The running service: the frame path, its accounting, the watchdog and the request desk."""
