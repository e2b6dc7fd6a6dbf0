"""The patient's pose in every frame, or the truth that there is none."""
