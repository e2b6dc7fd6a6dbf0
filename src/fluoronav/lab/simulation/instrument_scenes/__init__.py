"""Random scenes with instruments in front of real anatomy, and with objects that look like instruments.

They train the detector and measure it; a scene states where every tip and axis is.
"""

from fluoronav.lab.simulation.instrument_scenes.limb import Background, limb
from fluoronav.lab.simulation.instrument_scenes.maker import SceneMaker
from fluoronav.lab.simulation.instrument_scenes.placed import Placed, visible_axis_px
from fluoronav.lab.simulation.instrument_scenes.shapes import training_shape, unseen_shape

__all__ = ["Background", "Placed", "SceneMaker", "limb", "training_shape", "unseen_shape", "visible_axis_px"]
