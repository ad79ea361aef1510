"""Procedural landscapes with exact label maps, by seed: licence-free pictures for demonstrations, tests and the shipped weights' training.

A seed gives a plan (jseg.scenery.scenes), the plan a height field with a surface at every sample (relief, terrain), and a second seed the
style: hour, weather, season and colours. The label map is what the painter painted: each pixel has the id of the surface drawn there.
Ids are the challenge's 29 (jseg.classes, landscape-29); snow has no class of its own: on mountains it is mountain, on the ground land.
"""
import json
from pathlib import Path
from typing import Optional, Tuple

import cv2
import numpy as np

from jseg.scenery import ids, props, scatter
from jseg.scenery.canvas import Canvas
from jseg.scenery.finish import develop, smooth_edges
from jseg.scenery.paint import albedo, foliage, light, through_air
from jseg.scenery.relief import build
from jseg.scenery.scenes import make_plan
from jseg.scenery.sky import paint_sky
from jseg.scenery.style import make_style
from jseg.scenery.terrain import View, depth_grid, look, normals, survey_grid
from jseg.scenery.water import paint_water

DEBUG = 0


def landscape(seed: int, width: int = 512, height: int = 384, style_seed: Optional[int] = None, kind: str = "") -> Tuple[np.ndarray, np.ndarray]:
    """A landscape and its label map: (picture uint8 [height, width, 3] RGB, label uint8 [height, width] of ids 0..28)."""
    plan = make_plan(seed, kind)
    style = make_style(seed if style_seed is None else style_seed, plan.wintry)
    view = View(width, height, plan.tan_half, plan.horizon, plan.eye)
    survey = survey_grid(view)
    grid = depth_grid(view, survey, build(plan, survey).base)
    ground = build(plan, grid)
    if DEBUG: print(grid.shape)
    sight = look(view, grid, np.maximum(ground.height, ground.level))
    normal = normals(ground.height, grid)
    radiance, _ = light(style, ground, normal, albedo(plan, style, ground, normal))
    sky, haze = paint_sky(view, style)
    z = np.exp(np.interp(sight.place, np.arange(len(grid.v)), grid.v)).astype(np.float32)
    up = view.eye + z * view.tangents()[:, None]
    mist_top = max(45.0, 0.35 * view.eye)

    def air(colour, haze_colour, distance, above):
        return through_air(style, colour, haze_colour, distance, above, mist_top)

    seen = sight.read(radiance)
    label = np.where(sight.sky, ids.SKY, sight.read_nearest(ground.surface)).astype(np.uint8)
    seen = foliage(plan, view, label, seen)
    wet = np.isin(label, ids.OPEN_WATER)
    depth = np.where(wet, sight.read(ground.water), 0)
    picture = np.where(sight.sky[..., None], sky, air(seen, haze, z, up))
    picture[wet] = 0
    canvas = Canvas(view, style, picture, np.where(sight.sky, np.float32(np.inf), z), label, haze, air)
    standing = scatter.trees(plan, view, ground) + scatter.small(plan, view, ground)
    scatter.shadows(canvas, standing, ground)
    props.draw(plan, canvas, ground)
    scatter.draw(plan, canvas, standing)
    paint_water(plan, style, canvas, ground, depth, seen, haze, air)
    return develop(smooth_edges(canvas.picture, canvas.label, canvas.z), view, style), canvas.label
