"""A simulated C-arm, its grabber and an optical tracker: live input where there is no operating room.

Its X-ray model is deliberately not the registration's: another interpolation, a finer step, two materials, a spectrum,
scatter, blur, noise and the whole thorax around the spine that the registration knows.
"""
