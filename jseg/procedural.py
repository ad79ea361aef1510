"""Procedural landscapes with exact label maps, by seed: licence-free pictures for demonstrations, tests and the shipped weights' training.

A seed gives a plan (jseg.scenery.scenes), the plan a height field with a surface at every sample (relief, terrain), and a second seed the
style: hour, weather, season and colours. The label map is what the painter painted: each pixel has the id of the surface drawn there.
Ids are the challenge's 29 (jseg.classes, landscape-29); snow has no class of its own: on mountains it is mountain, on the ground land.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable, Optional, Tuple, Union

import numpy as np

from jseg.atomic import write_atomic
from jseg.images import save_picture
from jseg.scenery import props, scatter
from jseg.scenery.canvas import Canvas
from jseg.scenery.finish import develop, smooth_edges
from jseg.scenery.paint import albedo, foliage, light
from jseg.scenery.relief import build
from jseg.scenery.scenes import KINDS, make_plan
from jseg.scenery.sky import paint_sky
from jseg.scenery.style import make_style
from jseg.scenery.terrain import View, depth_grid, look, normals, survey_grid
from jseg.scenery.water import paint_water

LEAST, MOST = 16, 8192  # pixels of a side
REFERENCE_SEEDS = 1 << 30  # seeds of the style references start here, beyond those of the scenes


def landscape(
    seed: int, width: int = 512, height: int = 384, style_seed: Optional[int] = None, kind: str = ""
) -> Tuple[np.ndarray, np.ndarray]:
    """A landscape and its label map: (picture uint8 [height, width, 3] RGB, label uint8 [height, width] of ids 0..28).

    `seed` chooses the geometry, `style_seed` (default: the seed) hour, weather, season and colours; `kind` forces one kind of scene. The
    same seed at another size is the same scene. Raises ValueError for an impossible size, seed or kind.
    """
    _check(seed, width, height, kind)
    plan = make_plan(int(seed), kind)
    style = make_style(int(seed if style_seed is None else style_seed), plan.wintry)
    view = View(width, height, plan.tan_half, plan.horizon, plan.eye)
    survey = survey_grid(view)
    grid = depth_grid(view, survey, build(plan, survey).base)
    ground = build(plan, grid)
    sight = look(view, grid, np.maximum(ground.height, ground.level))
    normal = normals(ground.height, grid)
    canvas = Canvas(view, style, sight, grid, ground.surface, *paint_sky(view, style))
    seen = foliage(plan, view, canvas.label_ground, sight.read(light(style, ground, normal, albedo(plan, style, ground, normal))))
    canvas.lay_ground(seen)
    standing = scatter.trees(plan, ground) + scatter.small(plan, ground)
    scatter.shadows(canvas, standing)
    props.draw(plan, canvas, ground)
    scatter.draw(plan, canvas, standing)
    paint_water(plan, style, canvas, ground, sight.read(ground.water), seen)
    return develop(smooth_edges(canvas.picture, canvas.label, canvas.z), view, style), canvas.label


def write_challenge(
    folder: Union[str, Path],
    count: int,
    seed: int = 0,
    width: int = 512,
    height: int = 384,
    progress: Optional[Callable[[int], object]] = None,
) -> None:
    """Write `count` label maps with style references in the layout of the challenge's reviewer interface.

    `folder`/test/val_B_labels_resized/*.png are the label maps (8-bit gray), test/label_to_img.json names each one's reference,
    train/imgs/*.jpg are the references, pictures of other scenes, and train/labels/*.png their own label maps. Every file is written whole
    or not at all, the JSON last. `progress(n)` is called after the n-th pair. Raises ValueError for impossible arguments and for a label
    folder with other maps in it.
    """
    _check(seed, width, height)
    if count < 1:
        raise ValueError("procedural landscapes: a count of %d; expected 1 or more" % count)
    folder = Path(folder)
    labels, images, image_labels = folder / "test" / "val_B_labels_resized", folder / "train" / "imgs", folder / "train" / "labels"
    for place in (labels, images, image_labels):
        place.mkdir(parents=True, exist_ok=True)
    strangers = sorted({path.name for path in labels.glob("*.png")} - {"scene_%04d.png" % number for number in range(count)})
    if strangers:
        raise ValueError(
            "%s already holds %d other label maps, such as %s; give an empty folder or remove them" % (labels, len(strangers), strangers[0])
        )
    pairs = {}
    for number in range(count):
        stem, reference_stem = "scene_%04d" % number, "style_%04d" % number
        picture, label = landscape(REFERENCE_SEEDS + seed + number, width, height)
        save_picture(images / (reference_stem + ".jpg"), picture)
        save_picture(image_labels / (reference_stem + ".png"), label)
        save_picture(labels / (stem + ".png"), landscape(seed + number, width, height)[1])
        pairs[stem + ".png"] = reference_stem + ".jpg"
        if progress is not None:
            progress(number + 1)
    text = json.dumps(pairs, indent=1, sort_keys=True) + "\n"
    write_atomic(folder / "test" / "label_to_img.json", lambda file: file.write(text.encode("utf-8")))


def _check(seed: int, width: int, height: int, kind: str = "") -> None:
    if not 0 <= seed < 1 << 31:
        raise ValueError("procedural landscapes: a seed of %s; expected 0 to 2147483647" % seed)
    if not (LEAST <= width <= MOST and LEAST <= height <= MOST):
        raise ValueError("procedural landscapes: a size of %sx%s; expected %d to %d pixels on each side" % (width, height, LEAST, MOST))
    if kind and kind not in KINDS:
        raise ValueError("procedural landscapes: no kind of scene %r; there are %s" % (kind, ", ".join(KINDS)))
