"""`bench cohort`: registration measured on people and scenes that it was not tuned on, with a renderer of its own.

The renderer shares no code with the registration's projector, nor with the simulated C-arm of the demo.
"""

from fluoronav.lab.bench.cohort.people import known_people, spec_of
from fluoronav.lab.bench.cohort.render import Exposure, render
from fluoronav.lab.bench.cohort.scenes import BY_NAME, SCENES, Scene

__all__ = ["BY_NAME", "SCENES", "Exposure", "Scene", "known_people", "render", "spec_of"]
