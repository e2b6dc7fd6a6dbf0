"""A plan's surgery carried out again and again while a person changes it."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from fluoronav.planning.meshes.parts import Part
from fluoronav.planning.meshes.solid import solid, surface_of
from fluoronav.planning.plan.schema import Item
from fluoronav.planning.simulation.bodies import SETTINGS as BODIES
from fluoronav.planning.simulation.bodies import Bodies, Kept, LabelMap
from fluoronav.planning.simulation.catalogue import read_catalogue
from fluoronav.planning.simulation.simulate import Done, Simulated, Step, carried_out, steps_of, together


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """What is kept between two changes."""

    kept_bytes: int = 400_000_000  # bodies, distances and results; chosen: some bones and a lesion
    triangle_bytes: int = 48  # of a surface: three whole numbers of 8 bytes, and half a point; see `Mesh`
    drawn_mm: float = 0.3  # by which simplifying may move a body that is drawn; as for the surfaces of structures
    most_triangles: int = 8_000  # of a body that is drawn as it is; chosen: ten of them take 2 MB


SETTINGS = LiveSettings()


class Live:
    """Carries out plans one after another, and keeps what the next change will need.

    A change makes anew only the steps that it concerns: bodies of bones and distances about lesions stay, and so do the
    results of the other steps. What was used least goes first when the memory is full.

    Parameters
    ----------
    kept_bytes : int
    """

    def __init__(self, kept_bytes: int = SETTINGS.kept_bytes) -> None:
        self.kept = Kept(kept_bytes)
        self._catalogue = read_catalogue()

    def bodies_of(self, labels: LabelMap, structures: Mapping[str, int], key: Hashable) -> Bodies:
        """Bodies of a label map that others of the same key share."""
        return Bodies(labels, structures, "the label map", self.kept, key, BODIES.reaches_mm)

    def prepare(self, bodies: Bodies, names: Sequence[str]) -> None:
        """Makes the bodies of bones that will be cut, so that the first change need not wait for them."""
        for name in names:
            bodies.bone(name, coarse=True)

    def simulated(self, bodies: Bodies, items: Sequence[Item], *, exact: bool) -> Simulated:
        """Carries out the cuts, moves, resections and implants among the items; the bodies are for drawing.

        Parameters
        ----------
        bodies : Bodies
        items : sequence of Item
        exact : bool
            The numbers of `fluoronav plan simulate`; else those of coarse bodies, which take a fraction of the time.
            A step that was carried out exactly before is exact in either case; ``exact`` of the report says whether
            all are.

        Raises
        ------
        MeshError, PlanError
        """
        started = time.perf_counter()
        steps = steps_of(items)
        done = [self._done(bodies, step, exact=exact) for step in steps]
        result = together(steps, [one for one, _ in done])
        result.report["exact"] = all(is_exact for _, is_exact in done)
        result.report["seconds"] = round(time.perf_counter() - started, 4)
        return result

    def _done(self, bodies: Bodies, step: Step, *, exact: bool) -> tuple[Done, bool]:
        """What a step leaves, and whether it is exact."""
        content = tuple(i.model_dump_json(exclude={"origin", "audit"}) for i in step.items)
        own = (bodies.key, "done", content, tuple(bodies.structures.items()))
        if (found := self.kept.known(own)) is not None:
            return found, True
        done = carried_out(step, bodies, self._catalogue, coarse=not exact)
        if exact:
            done = replace(done, parts=tuple(_drawn(p) for p in done.parts))
            self.kept.keep(own, done, sum(len(p.mesh.triangles) * SETTINGS.triangle_bytes for p in done.parts))
        return done, exact


def _drawn(part: Part) -> Part:
    """A body as it is drawn: one of many triangles is simplified."""
    if len(part.mesh.triangles) <= SETTINGS.most_triangles:
        return part
    return replace(part, mesh=surface_of(solid(part.mesh, part.name).simplify(SETTINGS.drawn_mm)))
