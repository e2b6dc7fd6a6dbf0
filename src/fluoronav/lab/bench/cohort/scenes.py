"""The scenes of the cohort: what is in the beam, and what the registration was given."""

from __future__ import annotations

from dataclasses import dataclass

SPINE = ("lumbar", "chest")


@dataclass(frozen=True)
class GivenCt:
    """How the CT that the registration gets differs from the one in the beam.

    Attributes
    ----------
    labels : bool
        It has a label map.
    kernels : tuple of float
        Reconstruction kernels in turns: width of a blur, mm; negative: sharpened by as much.
    slices_mm : tuple of float
        Slice thicknesses in turns; empty: as it is.
    cube_mm : float
        Side of a cube around the target that was reconstructed; 0: all.
    vertebrae : int
        So many vertebrae, and nothing above and below; 0: all.
    contrast : bool
        Vessels hold the contrast that the CT shows.
    screws : int
        Pedicle screws and rods of an earlier operation, with the streaks that they leave.
    """

    labels: bool = True
    kernels: tuple[float, ...] = ()
    slices_mm: tuple[float, ...] = ()
    cube_mm: float = 0.0
    vertebrae: int = 0
    contrast: bool = True
    screws: int = 0


@dataclass(frozen=True)
class OnTable:
    """How the patient in the beam differs from the CT.

    Attributes
    ----------
    bend_deg_per_100mm, breath_mm : float
        See :func:`fluoronav.lab.bench.cohort.motion.moved`.
    contrast : bool
        Vessels hold the contrast that the CT shows.
    screws : int
        Pedicle screws, joined by two rods.
    hand : bool
    other_person : bool
        The CT is somebody else's.
    """

    bend_deg_per_100mm: float = 0.0
    breath_mm: float = 0.0
    contrast: bool = True
    screws: int = 0
    hand: bool = False
    other_person: bool = False


@dataclass(frozen=True)
class Picture:
    """How the picture is taken.

    Attributes
    ----------
    mirrored : bool
    video : bool
        It comes as an 8-bit video signal.
    blade_leak : float
        Share of the beam behind the blades.
    blades : tuple of float
        How far the left, top, right and bottom blade reach into the picture at most, as a share of its side.
    strip : float
        Share of the image behind a blade at its right edge, which lets 5 % through; 0: none.
    aside_mm : float
        The picture is aimed so far to the side of the target.
    """

    mirrored: bool = False
    video: bool = False
    blade_leak: float = 0.002
    blades: tuple[float, float, float, float] = (0.14, 0.06, 0.14, 0.06)
    strip: float = 0.0
    aside_mm: float = 0.0


@dataclass(frozen=True)
class Scene:
    """A scene of the cohort.

    Attributes
    ----------
    name : str
    what : str
        In words, for tables.
    regions : tuple of str
        Regions in turns.
    given, on_table, picture
    present : bool
        The patient of the CT is in the picture, and not mirrored; otherwise any pose that is believed is wrong.
    """

    name: str
    what: str
    regions: tuple[str, ...] = SPINE
    given: GivenCt = GivenCt()
    on_table: OnTable = OnTable()
    picture: Picture = Picture()

    @property
    def present(self) -> bool:
        """Whether there is a right pose; otherwise whatever is believed is wrong."""
        return not (self.picture.mirrored or self.on_table.other_person)


_REGIONS = ("lumbar", "pelvis", "mediastinum", "chest")
SCENES: tuple[Scene, ...] = (
    Scene("lumbar", "lumbar spine", ("lumbar",)),
    Scene("pelvis", "pelvis", ("pelvis",)),
    Scene("mediastinum", "upper thoracic spine behind the mediastinum", ("mediastinum",)),
    Scene("chest", "thoracic spine", ("chest",)),
    Scene("skull", "skull, and other CTs without a label map", ("skull", "dense")),
    Scene("no-labels", "CT without a label map", _REGIONS, GivenCt(labels=False)),
    Scene("other-kernel", "CT blurred by 1 mm, or sharpened", given=GivenCt(kernels=(1.0, -1.0))),
    Scene("no-contrast", "contrast in the CT alone", ("chest", "mediastinum"), on_table=OnTable(contrast=False)),
    Scene("contrast", "contrast in the picture alone", ("chest", "mediastinum"), GivenCt(contrast=False)),
    Scene("video-8-bit", "8-bit video signal", picture=Picture(video=True)),
    Scene("thick-slices", "CT of 3 and 5 mm slices", given=GivenCt(slices_mm=(3.0, 5.0))),
    Scene("cube-140", "CT of a 140 mm cube", given=GivenCt(cube_mm=140.0)),
    Scene("two-vertebrae", "CT of two vertebrae", given=GivenCt(vertebrae=2)),
    Scene("screws-6", "six pedicle screws and two rods, not in the CT", on_table=OnTable(screws=6)),
    Scene("screws-10", "ten pedicle screws and two rods, not in the CT", on_table=OnTable(screws=10)),
    Scene("ct-streaks", "six screws and two rods in CT and picture, with streaks in the CT", given=GivenCt(screws=6),
          on_table=OnTable(screws=6)),
    Scene("bent-4", "bent by 4 degrees per 100 mm", on_table=OnTable(bend_deg_per_100mm=4)),
    Scene("bent-6", "bent by 6 degrees per 100 mm", on_table=OnTable(bend_deg_per_100mm=6)),
    Scene("breathed-5", "breathed by 5 mm, spine at rest", on_table=OnTable(breath_mm=5)),
    Scene("breathed-12", "breathed by 12 mm, spine at rest", on_table=OnTable(breath_mm=12)),
    Scene("bent-and-breathed", "bent by 4 degrees per 100 mm, breathed by 8 mm",
          on_table=OnTable(bend_deg_per_100mm=4, breath_mm=8)),
    Scene("blade-leak", "blades let 1 % through", picture=Picture(blade_leak=0.01, blades=(0.3, 0.2, 0.3, 0.2))),
    Scene("missed-strip", "a strip of 4.5 % behind a thin blade", picture=Picture(strip=0.045)),
    Scene("hand", "the surgeon's hand in the beam", on_table=OnTable(hand=True)),
    Scene("only-ribs", "aimed 120 mm beside the spine", ("chest",), picture=Picture(aside_mm=120.0)),
    Scene("mirrored", "picture mirrored", (*_REGIONS, "skull"), picture=Picture(mirrored=True)),
    Scene("other-person", "another patient's CT", _REGIONS, on_table=OnTable(other_person=True)),
)  # fmt: skip
BY_NAME = {scene.name: scene for scene in SCENES}


def chosen(names: list[str] | None) -> list[Scene]:
    """Scenes by name, all where none is named; raises ValueError for a name that is none."""
    unknown = [n for n in names or [] if n not in BY_NAME]
    if unknown:
        raise ValueError(f"no scene `{unknown[0]}`; there are: {', '.join(BY_NAME)}")
    return [BY_NAME[n] for n in names] if names else list(SCENES)
