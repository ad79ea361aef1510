"""Procedural landscapes with exact label maps, by seed: licence-free images for demonstrations,
tests and the shipped weights' training.

A seed gives a plan (jseg.landscapes.scenes), the plan a height field with a surface at every sample
(relief, terrain), and a second seed the style: hour, weather, season and colours. The label map is
what the painter painted: each pixel has the id of the surface drawn there. Ids are the challenge's
29 (jseg.data.classes, landscape-29); snow has no class of its own: on mountains it is mountain, on
the ground land.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Callable, Optional, Tuple, Union

import numpy as np

from jseg.files import remove_stale_temporaries, write_atomic
from jseg.image_files.decoding import read_header
from jseg.images import save_image
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
from jseg.outputs.records import read_record
from jseg.outputs.rules import (
    OutputError,
    check_empty,
    check_folder,
    check_names,
    check_origin,
    held,
)

LEAST, MOST = 16, 8192  # pixels of a side
RECORD = "landscapes.json"
PLACES = ("test/val_B_labels_resized", "train/imgs", "train/labels")
TABLE = "test/label_to_img.json"
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
    _check(seed, width, height, kind)
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


def write_challenge(
    folder: Union[str, Path],
    count: int,
    seed: int = 0,
    width: int = 512,
    height: int = 384,
    progress: Optional[Callable[[int], object]] = None,
) -> int:
    """Write `count` label maps with style references in the layout of the challenge's reviewer
    interface.

    `folder`/test/val_B_labels_resized/*.png are the label maps (8-bit gray), test/label_to_img.json
    names each one's reference, train/imgs/*.jpg are the references, images of other scenes, and
    train/labels/*.png their own label maps. `folder`/RECORD tells how they were drawn: the same
    call keeps what is there, draws the rest, and returns how many pairs were there. Every file is
    written whole or not at all, the JSON last. `progress(n)` is called after the n-th pair. Raises
    errors as `check_challenge` does, which is asked first.
    """
    check_challenge(folder, count, seed, width, height)
    folder, kept = Path(folder), 0
    with held(folder):
        check_challenge(
            folder, count, seed, width, height
        )  # once more: another run may have written there since
        about = _read(folder) or _record(count, seed, width, height)
        for place in PLACES:
            (folder / place).mkdir(parents=True, exist_ok=True)
            remove_stale_temporaries(folder / place)
        write_record(folder, about)

        # A pair is recorded when its files are there, so that no file of another origin is ever
        # taken for a drawing.
        for number in range(count):
            made = _write_pair(folder, number, seed, width, height)
            kept += not made
            if number >= about["written"]:
                about["written"] = number + 1
                write_record(folder, about)
            if progress is not None:
                progress(number + 1)

        table = folder / TABLE
        if not table.exists():
            pairs = {
                f"scene_{number:04d}.png": f"style_{number:04d}.jpg" for number in range(count)
            }
            text = json.dumps(pairs, indent=1, sort_keys=True) + "\n"
            write_atomic(table, lambda file: file.write(text.encode("utf-8")))
    return kept


def check_challenge(
    folder: Union[str, Path],
    count: int,
    seed: int,
    width: int,
    height: int,
    option: str = "--output",
) -> None:
    """Raise ValueError unless `write_challenge` can draw these pairs into the folder; writes
    nothing.

    The arguments must be possible, and the folder new, empty, or begun by the same call, with no
    file of another origin in it.
    """
    check_request(count, seed, width, height)
    folder = Path(folder)
    check_folder(folder, option, 3 * count * width * height if _read(folder) is None else 0)
    check_origin(folder, option, "landscapes")
    about = _read(folder)
    if about is None:
        check_empty(folder, option, RECORD)
        return

    # A set that was begun goes on as it is, or not at all.
    settings, asked = about["settings"], _record(count, seed, width, height)["settings"]
    if settings != asked:
        shown = [
            " ".join(f"--{name} {values.get(name)}" for name in asked)
            for values in (settings, asked)
        ]
        raise OutputError(
            f"{option} {folder} holds landscapes of {shown[0]}, not {shown[1]}; give another "
            f"{option}, or the same numbers to go on"
        )
    names = {name for number in range(count) for name in pair_names(number)}
    for place in PLACES:
        present = os.listdir(str(folder / place)) if (folder / place).is_dir() else []
        strangers = sorted(
            name for name in present if not name.startswith(".") and f"{place}/{name}" not in names
        )
        if strangers:
            raise OutputError(
                f"{option} {folder / place} holds {len(strangers)} files of another origin, such "
                f"as {strangers[0]}; move them away, or give another {option}"
            )
    known = {
        name for number in range(min(count, about["written"] + 1)) for name in pair_names(number)
    }
    check_names(folder, option, sorted(names), known, RECORD)
    check_names(folder, option, [TABLE], [TABLE] * (about["written"] == count), RECORD)


def check_request(count: int, seed: int, width: int = 512, height: int = 384) -> None:
    """Raise ValueError unless there are `count` scenes from `seed` on, each with a reference of
    another seed, of this size.
    """
    if count < 1:
        raise ValueError(f"procedural landscapes: a count of {count}; expected 1 or more")
    if not 0 <= seed <= REFERENCE_SEEDS - count:
        raise ValueError(
            f"procedural landscapes: a seed of {seed}; expected 0 to "
            f"{max(0, REFERENCE_SEEDS - count)} for a count of {count}"
        )
    _check(seed, width, height)


def pair_names(number: int) -> Tuple[str, str, str]:
    """The files of a pair, relative to the folder: reference, its label map, the label map."""
    return (
        f"train/imgs/style_{number:04d}.jpg",
        f"train/labels/style_{number:04d}.png",
        f"test/val_B_labels_resized/scene_{number:04d}.png",
    )


def write_record(folder: Path, about: dict) -> None:
    """Write what tells how the folder's landscapes were drawn, whole or not at all."""
    text = json.dumps(about, indent=1, sort_keys=True) + "\n"
    write_atomic(folder / RECORD, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def _record(count: int, seed: int, width: int, height: int) -> dict:
    settings = {"count": int(count), "seed": int(seed), "width": int(width), "height": int(height)}
    return {"format": 1, "command": "landscapes", "settings": settings, "written": 0}


def _read(folder: Path) -> Optional[dict]:
    """The record in a folder, None if there is none; raises OutputError for a damaged one."""
    path = folder / RECORD
    if not path.exists():
        return None
    about = read_record(path)
    if (
        about is None
        or not isinstance(about.get("settings"), dict)
        or not isinstance(about.get("written"), int)
    ):
        raise OutputError(
            f"{path} is no record of landscapes, or is damaged; move it away, or give another "
            "--output"
        )
    return about


def _write_pair(folder: Path, number: int, seed: int, width: int, height: int) -> bool:
    """Draw what a pair lacks; whether anything was. Raises ImageError for a file that cannot be
    opened.
    """
    reference, reference_label, label = (folder / name for name in pair_names(number))
    missing = [path for path in (reference, reference_label, label) if not path.exists()]
    for path in (reference, reference_label, label):
        if path not in missing:
            read_header(path)
    if reference in missing or reference_label in missing:
        image, ids = landscape(REFERENCE_SEEDS + seed + number, width, height)
        for path, drawn in ((reference, image), (reference_label, ids)):
            if path in missing:
                save_image(path, drawn)
    if label in missing:
        save_image(label, landscape(seed + number, width, height)[1])
    return bool(missing)


def _check(seed: int, width: int, height: int, kind: str = "") -> None:
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
