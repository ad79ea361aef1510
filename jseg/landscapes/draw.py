"""Procedural landscapes with exact label maps, by seed: licence-free images for demonstrations,
tests and the shipped weights' training.

A seed gives a plan (jseg.landscapes.scenes), the plan a height field with a surface at every sample
(relief, terrain), and a second seed the style: hour, weather, season and colours. The label map is
what the painter painted: each pixel has the id of the surface drawn there. Ids are the challenge's
29 (jseg.data.classes, landscape-29); snow has no class of its own: on mountains it is mountain, on
the ground land.
"""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np

from jseg.landscapes import props, scatter
from jseg.landscapes.albedo import albedo
from jseg.landscapes.canvas import Canvas
from jseg.landscapes.finish import develop, smooth_edges
from jseg.landscapes.paint import foliage, light
from jseg.landscapes.relief import build
from jseg.landscapes.scenes import KINDS, make_plan
from jseg.landscapes.sky import paint_sky
from jseg.landscapes.style import make_style
from jseg.landscapes.terrain import View, depth_grid, look, normals, survey_grid
from jseg.landscapes.water import paint_water

LEAST, MOST = 16, 8192  # pixels of a side
REFERENCE_SEEDS = 1 << 30  # seeds of the style references start here, beyond those of the scenes


def landscape(
    seed: int, width: int = 512, height: int = 384, style_seed: Optional[int] = None, kind: str = ""
) -> Tuple[np.ndarray, np.ndarray]:
    """A landscape and its label map: (image uint8 [height, width, 3] RGB, label uint8 [height,
    width] of ids 0..28).

    `seed` chooses the geometry, `style_seed` (default: the seed) hour, weather, season and colours;
    `kind` forces one kind of scene. The same seed at another size is the same scene. Raises
    ValueError for an impossible size, seed or kind.
    """
    check_scene(seed, width, height, kind)
    plan = make_plan(int(seed), kind)
    style = make_style(int(seed if style_seed is None else style_seed), plan.wintry)

    # The terrain, on rows as dense as the image needs them.
    view = View(width, height, plan.tan_half, plan.horizon, plan.eye)
    survey = survey_grid(view)
    grid = depth_grid(view, survey, build(plan, survey).base)
    ground = build(plan, grid)
    sight = look(view, grid, np.maximum(ground.height, ground.level))
    normal = normals(ground.height, grid)

    # Sky and ground, then what stands there, then the water that mirrors it all.
    canvas = Canvas(view, style, sight, grid, ground.surface, *paint_sky(view, style))
    lit = light(style, ground, normal, albedo(plan, style, ground, normal))
    seen = foliage(plan, view, canvas.label_ground, sight.read(lit))
    canvas.lay_ground(seen)
    standing = scatter.trees(plan, ground) + scatter.small(plan, ground)
    scatter.shadows(canvas, standing)
    props.draw(plan, canvas, ground)
    scatter.draw(plan, canvas, standing)
    paint_water(plan, style, canvas, ground, sight.read(ground.water), seen)
    return develop(smooth_edges(canvas.image, canvas.label, canvas.z), view, style), canvas.label


def check_scene(seed: int, width: int, height: int, kind: str = "") -> None:
    """Raise ValueError unless there is such a landscape."""
    if not 0 <= seed < 1 << 31:
        raise ValueError(f"procedural landscapes: a seed of {seed}; expected 0 to 2147483647")
    if not (LEAST <= width <= MOST and LEAST <= height <= MOST):
        raise ValueError(
            f"procedural landscapes: a size of {width}x{height}; expected {LEAST} to {MOST} "
            "pixels on each side"
        )
    if kind and kind not in KINDS:
        raise ValueError(
            f"procedural landscapes: no kind of scene {kind!r}; there are {', '.join(KINDS)}"
        )
