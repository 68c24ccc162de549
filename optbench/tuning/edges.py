"""Follow-up trials beyond the edge of a search space."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from optbench.tuning.search import unit_points
from optbench.tuning.space import SCALES, Point, Space, put, ranges, value_at

# A value lies at the edge if its distance to an end is below this share of the range: 1 / trials,
# since few trials lie far apart, but no less and no more than these.
EDGE_SHARES = (0.05, 0.2)
SHARE_ADDED = 0.25  # of a range's length, beyond an edge on the scales linear and one_minus_log


class Edge(NamedTuple):
    """A hyperparameter whose best value lies at an end of its range."""

    name: str
    part: int | None
    value: float
    spec: Mapping[str, Any]
    upper: bool  # which end
    further: float  # the new end
    near: float  # the share of the range that counts as an edge

    @property
    def text(self) -> str:
        """Return the value and its range, as in "lr=0.9 in [0.0001, 1]"."""
        label = self.name if self.part is None else f"{self.name}[{self.part}]"
        text = f"{label}={self.value:g} in [{self.spec['low']:g}, {self.spec['high']:g}]"
        return text + f", its outer {self.near:.0%}" * (self.near > EDGE_SHARES[0])


def edges_of(space: Space, point: Point, trials: int = 20) -> list[Edge]:
    """Return the hyperparameters whose values lie at an edge of their range.

    An end beyond which no value lies, such as a momentum of 0, is no edge. trials: the number of
    trials of the search; fewer trials have a wider edge.
    """
    found = []
    near = min(max(EDGE_SHARES[0], 1 / max(trials, 1)), EDGE_SHARES[1])
    for name, part, spec in ranges(space):
        value = value_at(point, name, part)
        if "values" in spec or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        onto, _ = SCALES[spec["scale"]]
        try:
            low, high, at = (onto(float(v)) for v in (spec["low"], spec["high"], value))
        except ValueError:
            continue  # a default outside of the scale, such as a weight decay of 0
        share = (at - low) / (high - low)
        for upper, here in ((False, share < near), (True, share > 1 - near)):
            further = beyond(spec, upper)
            if here and further is not None:
                found.append(Edge(name, part, value, spec, upper, further, near))
    return found


def beyond(spec: Mapping[str, Any], upper: bool) -> float | None:
    """Return a further end of a range; None where no value lies beyond the end.

    On the scale log the new end lies a decade further, on others a quarter of the range's length. A
    range from 0 or above gets no negative end, and one of whole numbers from 1 no end below 1.
    """
    onto, back = SCALES[spec["scale"]]
    low, high = onto(float(spec["low"])), onto(float(spec["high"]))
    added = math.log(10) if spec["scale"] == "log" else SHARE_ADDED * (high - low)
    end = float(f"{back(high + added if upper else low - added):.6g}")
    if spec.get("int"):
        end = math.ceil(end) if upper else math.floor(end)
    if not upper and spec["low"] >= 0:
        end = max(end, 1 if spec.get("int") and spec["low"] >= 1 else 0)
    return None if end == spec["high" if upper else "low"] else end


def widened(space: Space, edges: list[Edge]) -> dict[str, Any]:
    """Return the space with the further ends of these edges."""
    found: dict[str, Any] = dict(space)
    for edge in edges:
        end = "high" if edge.upper else "low"
        if edge.part is None:
            found[edge.name] = {**found[edge.name], end: edge.further}
        else:
            parts = list(found[edge.name])
            parts[edge.part] = {**parts[edge.part], end: edge.further}
            found[edge.name] = parts
    return found


def points_beyond(best: Point, edges: list[Edge], number: int, seed: list[int]) -> list[Point]:
    """Return points beyond the edges, with the best point's other values.

    seed: the entropy of a scrambled Sobol sequence over the added ranges.
    """
    found = []
    for row in unit_points(len(edges), number, "sobol", seed):
        point = dict(best)
        for edge, u in zip(edges, row, strict=True):
            put(point, edge.name, edge.part, _between(edge, float(u)))
        found.append(point)
    return found


def _between(edge: Edge, u: float) -> float | int:
    onto, back = SCALES[edge.spec["scale"]]
    old = float(edge.spec["high" if edge.upper else "low"])
    start, end = onto(old), onto(edge.further)
    value = back(start + (1 - u) * (end - start))  # 0 < 1 - u: never the old end
    if edge.spec.get("int"):
        step = 1 if edge.upper else -1
        value = old + step * max(1, math.floor(abs(value - old) + 0.5))
        return int(min(value, edge.further) if edge.upper else max(value, edge.further))
    return float(f"{value:.6g}")
