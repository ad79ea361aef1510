"""The flow from source to codes: source, path, and the loss of a velocity with its detached,
distance-aware correction.

Clock: real t, 0 at the source (image or noise), 1 at the data (codes); velocities point from
source to data. After FlowSeg (arXiv 2603.19218), whose formulas are known second-hand: the network
is drawn to x1 - x0 - grad Phi(xhat), Phi being the distance potential of `jseg.flowseg.potential`
at the network's own estimate xhat = x_t + (1 - t) v of the end, both held constant. For the
gradient that equals plain flow matching plus a cross-entropy over the distances to all codes. tau,
eps, weight and the schedules of t are ours.
"""

from __future__ import annotations

from typing import Dict

import numpy as np

from jseg.configs import SOURCES
from jseg.flowseg.encoding import check_labels
from jseg.flowseg.potential import correction
from jseg.flowseg.presets import check_numbers
from jseg.nn.layers import as_var
from jseg.runtime import jt

NOISE_SHARE = 0.5  # standard deviation of the noise added to an image
SCHEDULES = {"static": lambda t: 1.0, "1-t": lambda t: 1 - t, "t": lambda t: t}


def source(kind: str, image=None, noise=None):
    """Where the flow starts, x0 [B,3,H,W]: the image in [-1, 1], Gaussian noise, or the image
    plus half the noise.

    kind: one of `SOURCES`; arrays or Vars. Raises ValueError for another kind, and when what the
    kind needs is missing.
    """
    if kind not in SOURCES:
        raise ValueError(f"source: unknown kind {kind!r}; choose one of {', '.join(SOURCES)}")
    for name, given in (("image", image), ("noise", noise)):
        if name in kind and given is None:
            raise ValueError(f"source: kind {kind!r} starts from {name}, which was not given")
    if kind == "image+noise":
        return image + NOISE_SHARE * noise
    return image if kind == "image" else noise


def interpolate(x0, x1, t):
    """The path's point x_t = (1 - t) x0 + t x1 for x0, x1 [B,3,H,W] and t [B] in [0, 1]; arrays in,
    array out, else Vars.
    """
    t = t.reshape(-1, 1, 1, 1)
    return (1 - t) * x0 + t * x1


def shifted(t, shift: float = 1.0):
    """Times t in [0, 1] moved towards the source by t / (t + (1 - t) shift); shift 1 leaves them,
    below 1 moves them to the data.

    Raises ValueError for a shift out of `presets.RANGES`.
    """
    check_numbers("shifted: ", shift=shift)
    return t / (t + (1 - t) * shift)


def flow_loss(
    velocity,
    x_t,
    x0,
    x1,
    t,
    labels,
    codes,
    *,
    weight: float = 1.0,
    tau: float = 1.0,
    eps: float = 1e-2,
    schedule: str = "static",
    mask=None,
) -> Dict[str, object]:
    """{"loss", "fm", "correction_norm"}: means over the pixels that count, of a velocity [B,3,H,W]
    at x_t = (1 - t) x0 + t x1, t [B].

    labels: ids 0 ... N - 1 [B,H,W], anything where mask is 0; codes: [N,3]; mask: [B,1,H,W] or
    [B,H,W], 1 where a pixel counts, None if all do. weight: of the correction, 0 being plain flow
    matching; schedule: its factor over time, "static", "1-t" or "t"; tau, eps: of the distances.
    "loss" gives its gradient to velocity alone; "fm", the loss of plain flow matching, and
    "correction_norm", the mean length of the correction, are for the log. Arrays or Vars; all
    arithmetic is float32. Raises ValueError for wrong shapes, an unknown schedule, weight, tau or
    eps out of `presets.RANGES`, and labels outside the classes that count.
    """
    _check_shapes(velocity, x_t, x0, x1, t, labels, codes, mask)
    if schedule not in SCHEDULES:
        raise ValueError(
            f"flow_loss: unknown schedule {schedule!r}; choose one of {', '.join(SCHEDULES)}"
        )
    # Without weight there is no correction, and an eps of 0 does no harm.
    check_numbers("flow_loss: ", weight=weight, tau=tau, **({"eps": eps} if weight or eps else {}))
    labels, counted = _counted(labels, codes.shape[0], mask)
    velocity = as_var(velocity).float32()
    with jt.no_grad():
        share = jt.array(np.float32(1 / max(counted.sum(dtype=np.float64), 1)))
        x_t, x0, x1, t, counted = (as_var(x).detach().float32() for x in (x_t, x0, x1, t, counted))
        straight = x1 - x0  # [B, 3, H, W]
    if weight == 0:
        fm = _mean_square(velocity - straight, counted, share)
        return {"loss": fm, "fm": fm.detach(), "correction_norm": jt.zeros(1).stop_grad()}
    with jt.no_grad():
        t, held = t.reshape(-1, 1, 1, 1), velocity.detach()
        gradient, _ = correction(x_t + (1 - t) * held, labels, as_var(codes).float32(), tau, eps)
        pull = weight * SCHEDULES[schedule](t) * gradient  # [B, 3, H, W]
        target = straight - pull
        fm = _mean_square(held - straight, counted, share)
        norm = _total(jt.sqrt((pull * pull).sum(1, keepdims=True)) * counted) * share
    return {
        "loss": _mean_square(velocity - target, counted, share),
        "fm": fm,
        "correction_norm": norm,
    }


def _mean_square(difference, counted, share):
    """The mean over channels and pixels of difference^2 [B,3,H,W], weighed by counted [B,1,H,W]
    with sum 1 / share.

    What is not counted is cut away before it is squared: 0 times a value that is not finite would
    be none.
    """
    weights = counted.expand(difference.shape)
    difference = jt.ternary(weights > 0, difference, jt.zeros_like(difference))
    return _total(weights * difference * difference) * (share / 3)


def _total(values):
    """The sum of [B,C,H,W], in stages: one float32 sum over millions of pixels loses digits."""
    return values.sum(3).sum(2).sum()


def _counted(labels, classes: int, mask):
    """(labels int32 [B,H,W], -1 where they do not count; weights float32 [B,1,H,W]) as arrays.
    Raises ValueError for other labels.
    """
    labels = np.asarray(labels.numpy() if isinstance(labels, jt.Var) else labels)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"flow_loss: labels are {labels.dtype}; expected integers")
    batch, height, width = labels.shape
    mask = (
        np.ones(labels.shape, np.float32)
        if mask is None
        else np.asarray(mask.numpy() if isinstance(mask, jt.Var) else mask, np.float32)
    )
    counted = mask.reshape(batch, 1, height, width)
    check_labels("flow_loss", labels, classes, counted[:, 0] > 0)
    return np.where(counted[:, 0] > 0, labels, -1).astype(np.int32), counted


def _check_shapes(velocity, x_t, x0, x1, t, labels, codes, mask) -> None:
    given = list(velocity.shape)
    if len(given) != 4 or given[1] != 3:
        raise ValueError(f"flow_loss: velocity of shape {given}; expected [B, 3, H, W]")
    batch, _, height, width = given
    expected = {
        "x_t": (x_t, given),
        "x0": (x0, given),
        "x1": (x1, given),
        "t": (t, [batch]),
        "labels": (labels, [batch, height, width]),
        "codes": (codes, [codes.shape[0], 3]),
    }
    for name, (array, shape) in expected.items():
        if list(array.shape) != shape:
            raise ValueError(
                f"flow_loss: {name} of shape {list(array.shape)}; expected {shape}, for velocity "
                f"is {given}"
            )
    if mask is not None and list(mask.shape) not in (
        [batch, 1, height, width],
        [batch, height, width],
    ):
        raise ValueError(
            f"flow_loss: mask of shape {list(mask.shape)}; expected {[batch, 1, height, width]} "
            f"or {[batch, height, width]}"
        )
