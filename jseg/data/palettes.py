"""The colours of label maps held against those of a class set, and images told from label maps."""

from __future__ import annotations

import numpy as np

from jseg.data.classes import ClassSet

# An image reduced to a palette is no label map: neighbouring pixels differ often, and by little.
# Photographs in 16 colours: 17 to 40 % of pairs, at 0.2 to 0.5 of the usual distance; label maps of
# CamVid, ADE20K, COCO-Stuff and the challenge: under 4 %, at 0.7 and more.
SPECKLED, SMOOTH, LEAST_PIXELS = 0.08, 0.6, 1024


def ids_of(colours: np.ndarray, classes: ClassSet) -> np.ndarray:
    """int64 [n]: what `classes` stores for each colour [n, 3]; -1 where no class has it.

    Black that is of no class is the first ignored value, if there is one.
    """
    ids = np.full(len(colours), -1, np.int64)
    stored = np.array(classes.file_ids or range(len(classes)))
    if classes.file_ignore:
        ids[(colours == 0).all(axis=1)] = classes.file_ignore[0]
    palette = classes.palette.astype(np.int64)
    matches = (np.asarray(colours, np.int64)[:, None] == palette[None]).all(axis=2)  # [n, N]
    known = matches.any(axis=1)
    ids[known] = stored[matches.argmax(axis=1)[known]]
    return ids


def has_colours_of(entries: np.ndarray, classes: ClassSet) -> bool:
    """Whether at least half of a palette's colours [n, 3] are of the classes.

    Black alone, which they may ignore, says nothing.
    """
    own = {tuple(colour) for colour in classes.palette.tolist()}
    others = {tuple(colour) for colour in entries.tolist()} - {(0, 0, 0)}
    return bool(own & others) and 2 * len(own & others) >= len(others)


def are_ids(values: np.ndarray, classes: ClassSet) -> bool:
    """Whether the classes store every one of these values."""
    stored = classes.file_ids or range(len(classes))
    return bool(np.isin(values, [*stored, *classes.file_ignore]).all())


def is_reduced_image(indices: np.ndarray, palette: np.ndarray) -> bool:
    """Whether a palette file, indices [H, W] into palette [256, 3], is an image in few colours.

    So it is where many neighbours differ, but by little.
    """
    if indices.size < LEAST_PIXELS:
        return False
    pairs = [(indices[:, 1:], indices[:, :-1]), (indices[1:], indices[:-1])]
    one, other = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    differ = one != other
    if differ.mean() < SPECKLED:
        return False

    # Few pairs of pixels that are not neighbours are as close as neighbours are.
    colours, flat = palette.astype(np.float64), indices.ravel()
    shuffled = flat[np.random.default_rng(0).permutation(flat.size)]
    apart = flat != shuffled
    near = _distance(colours[one[differ]], colours[other[differ]])
    return bool(near < SMOOTH * _distance(colours[flat[apart]], colours[shuffled[apart]]))


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return np.abs(one - other).sum(axis=1).mean()
