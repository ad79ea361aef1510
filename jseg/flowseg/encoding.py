"""Class codes in the cube [-1, 1]^3: label maps become code maps that the flow can end at, and code
maps become labels again.

After FlowSeg (arXiv 2603.19218), whose N codes follow Kronecker sequences: c_k = k (sqrt 2, sqrt 3,
sqrt 5) mod 1, scaled to [-1, 1]. The constants are known second-hand only; counting from k = 1 and
scaling each axis by its own minimum and maximum are ours.

Where the points come from:

    kronecker  the paper's square roots (default)
    r3         powers of 1/g in their place, g^4 = g + 1
    grid       a cubic grid, its first N points in lexicographic order
    lattice    multiples of three numbers found by random search

Smallest distance between two codes (noise of half that size can change a label):

    N =            2      11      19      29      40     150     171     182     256
    kronecker  3.4641   .8554   .5902   .5220   .2956   .1541   .1534   .1534   .1529
    r3         3.4641   .6925   .6410   .5184   .4613   .2260   .2242   .2241   .2241
    grid       2.0000  1.0000  1.0000   .6667   .6667   .4000   .4000   .4000   .3333
    lattice    3.4641  1.1992   .8914   .7640   .6631   .4033   .3799   .3747   .3349
"""

from __future__ import annotations

from typing import Iterator, Sequence, Tuple, Union

import numpy as np

KINDS = ("kronecker", "r3", "grid", "lattice")
CHUNK = 1 << 14  # pixels at a time: a few of their float64 rows fit into a second-level cache

_PLASTIC = 1.2207440846057596  # the positive root of x^4 = x + 1
_SQUARE_ROOTS = np.sqrt([2.0, 3.0, 5.0])
_POWERS = _PLASTIC ** -np.arange(1.0, 4.0)

# For up to N classes, the three numbers whose first N multiples lie farthest apart, of 6,000 to
# 20,000 random triples.
_LATTICES = {
    4: (0.454542, 0.194273, 0.923262),
    11: (0.174333, 0.75061, 0.66515),
    19: (0.376094, 0.14173, 0.049091),
    29: (0.250327, 0.986825, 0.588569),
    40: (0.010918, 0.429722, 0.749862),
    64: (0.682659, 0.244588, 0.998279),
    100: (0.856636, 0.393976, 0.003375),
    150: (0.958966, 0.804283, 0.998259),
    171: (0.657185, 0.727722, 0.003307),
    182: (0.00257, 0.73336, 0.957525),
    256: (0.04203, 0.999556, 0.630816),
}


def class_codes(n: int, kind: str = "kronecker") -> np.ndarray:
    """The codes of n classes, float64 [n, 3] in [-1, 1]; row i belongs to class i.

    All rows depend on n. kind: see the module. A network is trained for one n and kind. Raises
    ValueError for n < 2, an unknown kind, and for the kind "lattice" beyond 256 classes.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 2:
        raise ValueError(f"class_codes: {n!r} classes; there must be 2 or more")
    if kind not in KINDS:
        raise ValueError(f"class_codes: unknown kind {kind!r}; choose one of {', '.join(KINDS)}")
    if kind == "grid":
        return _grid(int(n))
    if kind == "lattice":
        return _multiples(int(n), np.array(_lattice(int(n))))
    return _multiples(int(n), _SQUARE_ROOTS if kind == "kronecker" else _POWERS)


def _multiples(n: int, alphas: np.ndarray) -> np.ndarray:
    """c_k = k alphas mod 1 for k = 1 ... n, and mu_k, each axis of c_k stretched to [-1, 1]."""
    c = np.arange(1.0, n + 1)[:, None] * alphas % 1.0
    low, high = c.min(0), c.max(0)
    return 2 * (c - low) / (high - low) - 1


def _grid(n: int) -> np.ndarray:
    side = 2
    while side**3 < n:
        side += 1
    axis = np.linspace(-1.0, 1.0, side)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)[:n].copy()


def _lattice(n: int) -> Tuple[float, float, float]:
    """The triple of the smallest tabulated number of classes that is not below n: fewer multiples
    lie no closer.
    """
    sizes = [size for size in _LATTICES if size >= n]
    if not sizes:
        raise ValueError(
            f"class_codes: no lattice was searched for {n} classes, only for up to "
            f"{max(_LATTICES)}; use kind='r3' or 'grid'"
        )
    return _LATTICES[min(sizes)]


def encode(
    labels: np.ndarray, codes: np.ndarray, ignore: Union[int, Sequence[int], None] = 255
) -> Tuple[np.ndarray, np.ndarray]:
    """Integer labels [..., H, W] -> (code map float32 [..., 3, H, W], mask float32 [..., 1, H, W]:
    1 where a label counts, else 0).

    ignore: the id, or ids, of pixels without a label (None: there are none); their code is 0, the
    centre of the cube. Resize label maps before encoding, with nearest neighbours: codes in
    between are those of other classes. Raises ValueError for other labels outside 0 ... n - 1, and
    for labels that are not integers.
    """
    ids, rows = np.asarray(labels), _checked_codes(codes)
    if ids.dtype.kind not in "iu" or ids.ndim < 2:
        raise ValueError(
            f"encode: labels are {ids.dtype} {list(ids.shape)}; expected integers [..., H, W]"
        )
    n = len(rows)
    ignored = np.isin(ids, [] if ignore is None else np.atleast_1d(ignore))
    check_labels("encode", ids, n, ~ignored)

    # One row of codes more, for pixels without a label.
    index = np.where(ignored, n, ids).astype(np.intp)
    table = np.vstack([rows, np.zeros((1, 3))]).astype(np.float32)
    x1 = np.empty(ids.shape[:-2] + (3,) + ids.shape[-2:], np.float32)
    for channel in range(3):
        x1[..., channel, :, :] = table[:, channel][index]
    return x1, (~ignored)[..., None, :, :].astype(np.float32)


def check_labels(caller: str, labels: np.ndarray, classes: int, counts: np.ndarray) -> None:
    """Raise ValueError, naming the ids, if labels lie outside 0 ... classes - 1 where the boolean
    map `counts` is set.
    """
    wrong = counts & ((labels < 0) | (labels >= classes))
    if wrong.any():
        ids = np.unique(labels[wrong])
        shown = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
        raise ValueError(
            f"{caller}: label {shown} outside 0 ... {classes - 1}, the {classes} classes; ignore "
            "such pixels, or use codes of more classes"
        )


def decode(x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Points x [..., 3, H, W] -> int32 [..., H, W], the class of the nearest code, the lowest on
    ties.

    Equal to the class of the largest `assignment`, whatever its tau and eps. Raises ValueError
    where x is not finite.
    """
    maps, rows = _checked_points("decode", x), _checked_codes(codes)
    places = maps.shape[:-3] + maps.shape[-2:]
    labels = np.empty(places, np.int32).reshape(-1, places[-2] * places[-1])
    for i, part, points in _chunks(maps):
        smallest = np.full(points.shape[1], np.inf)
        nearest = np.zeros(points.shape[1], np.int32)
        for k, code in enumerate(rows):
            distance = _distance(points, code)
            nearest[distance < smallest] = k
            np.minimum(smallest, distance, out=smallest)
        labels[i, part] = nearest
    return labels.reshape(places)


def assignment(x: np.ndarray, codes: np.ndarray, tau: float = 1.0, eps: float = 1e-2) -> np.ndarray:
    """Points x [..., 3, H, W] -> float32 [..., N, H, W], the probability of each class.

    p_k = (d_k + eps)^(-1/tau) / sum_j (d_j + eps)^(-1/tau), with squared distances d_k from the
    codes. To combine several results for one image, average these and take the largest; a mean of
    the points may lie next to a third class. Raises ValueError where x is not finite, for tau <= 0
    and eps < 0.
    """
    maps, rows = _checked_points("assignment", x), _checked_codes(codes)
    if not (tau > 0 and eps >= 0):
        raise ValueError(
            f"assignment: tau = {tau}, eps = {eps}; expected tau above 0 and eps 0 or more"
        )
    shape = maps.shape[:-3] + (len(rows),) + maps.shape[-2:]
    probabilities = np.empty(shape, np.float32).reshape(-1, len(rows), shape[-2] * shape[-1])
    for i, part, points in _chunks(maps):
        # A softmax over -log(d_k + eps) / tau, in place.
        logits = np.stack([_distance(points, code) for code in rows])  # [N, pixels]
        logits += max(eps, np.finfo(np.float64).tiny)
        np.log(logits, out=logits)
        logits /= -tau
        logits -= logits.max(0)
        np.exp(logits, out=logits)
        logits /= logits.sum(0)
        probabilities[i, :, part] = logits
    return probabilities.reshape(shape)


def _chunks(x: np.ndarray) -> Iterator[Tuple[int, slice, np.ndarray]]:
    """(map, run of its pixels, their points float64 [3, pixels]) for the maps x [..., 3, H, W]."""
    maps = x.reshape((-1, 3, x.shape[-2] * x.shape[-1]))
    for i, points in enumerate(maps):
        for start in range(0, points.shape[1], CHUNK):
            part = slice(start, start + CHUNK)
            chunk = points[:, part].astype(np.float64)
            if not np.isfinite(chunk).all():
                raise ValueError(
                    "a code map has values that are not finite: the flow diverged; check its "
                    "weights and learning rate"
                )
            yield i, part, chunk


def _distance(points: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Squared distances of points [3, pixels] from one code, from differences: |x|^2 - 2 x mu +
    |mu|^2 cancels near the code.
    """
    total = (points[0] - code[0]) ** 2
    total += (points[1] - code[1]) ** 2
    total += (points[2] - code[2]) ** 2
    return total


def _checked_points(caller: str, x: np.ndarray) -> np.ndarray:
    maps = np.asarray(x)
    if maps.ndim < 3 or maps.shape[-3] != 3:
        raise ValueError(
            f"{caller}: a code map of shape {list(maps.shape)}; expected [..., 3, H, W]"
        )
    return maps


def _checked_codes(codes: np.ndarray) -> np.ndarray:
    rows = np.asarray(codes, np.float64)
    if rows.ndim != 2 or rows.shape[1] != 3 or len(rows) < 2:
        raise ValueError(
            f"codes of shape {list(rows.shape)}; expected [N, 3] with N of 2 or more, as "
            "class_codes gives them"
        )
    return rows
