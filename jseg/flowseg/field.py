"""The flow from an image to class codes: source, path, the corrected velocity and its loss.

Clock: real t, 0 at the source (image or noise), 1 at the data (codes); velocities point from
source to data. After FlowSeg (arXiv 2603.19218), whose formulas are known second-hand and without
their numbers; the numbers here are ours and stand beside the lines that compute them. y is a
pixel's class, mu_k the code of class k, v_theta the network's velocity, sg a stop-gradient.

    (1) path        x_t = (1 - t) x_0 + t x_1,  v_t = x_1 - x_0,  with x_1 = mu_y
    (2) estimate    xhat_1 = x_t + (1 - t) v_theta(x_t, t)
    (3) distances   d_k = ||xhat_1 - mu_k||^2
    (4) assignment  p_k = (d_k + eps)^(-1/tau) / sum_j (d_j + eps)^(-1/tau)
    (5) potential   Phi(xhat_1, y) = -log p_y
    (6) gradient    grad Phi = 2/tau sum_k (1[k = y] - p_k) (xhat_1 - mu_k) / (d_k + eps)
    (7) target      v~_t = v_t - weight w(t) grad Phi
    (8) loss        L_res = E ||v_theta - sg[v~_t]||^2

(3) to (6) are in `jseg.flowseg.potential`. The gradient of (8) is that of plain flow matching,
||v_theta - v_t||^2, plus a cross-entropy over the distances, 2 weight w(t) / (1 - t) Phi. The
values of tau and eps, the weight, and every w(t) but 1 are ours.
"""

from __future__ import annotations

from typing import Callable, Dict, Mapping, Optional

import numpy as np

from jseg.configs import SOURCES
from jseg.data.classes import IGNORED
from jseg.flowseg.encoding import check_labels
from jseg.flowseg.potential import correction
from jseg.flowseg.presets import check_numbers
from jseg.nn.layers import as_var
from jseg.runtime import jt

# What `jseg.images.to_signed` makes of each level; that module needs Pillow, gpu_check has none.
SIGNED = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)
NOISE_WEIGHT = 0.5  # standard deviation of the noise added to an image
SCHEDULES = {"static": lambda t: 1.0, "1-t": lambda t: 1 - t, "t": lambda t: t}  # w(t)


def source(kind: str, image=None, noise=None):
    """The start of the flow, x_0 [B, 3, H, W]: the image in [-1, 1], Gaussian noise, or the image
    plus half the noise.

    kind: one of `SOURCES`; image and noise are arrays or Vars. Raises ValueError for another kind,
    and when what the kind needs is missing.
    """
    if kind not in SOURCES:
        raise ValueError(f"source: unknown kind {kind!r}; choose one of {', '.join(SOURCES)}")
    for name, value in (("image", image), ("noise", noise)):
        if name in kind and value is None:
            raise ValueError(f"source: kind {kind!r} starts from {name}, which was not given")
    if kind == "image+noise":
        return image + NOISE_WEIGHT * noise
    return image if kind == "image" else noise


def interpolate(x0, x1, t):
    """The path's point x_t for x0, x1 [B, 3, H, W] and t [B] in [0, 1].

    Arrays give an array, Vars a Var.
    """
    t = t.reshape(-1, 1, 1, 1)
    return (1 - t) * x0 + t * x1  # (1)


def shifted(t, shift: float = 1.0):
    """Times t in [0, 1] moved towards the source: t / (t + (1 - t) shift).

    A shift of 1 leaves them as they are, one below 1 moves them towards the data. Raises ValueError
    for a shift outside `presets.RANGES`.
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
    """{"loss", "fm", "correction_norm"} of a velocity [B, 3, H, W] at the path's point x_t: means
    over the pixels that count.

    "loss" passes a gradient to the velocity alone. "fm", the loss of plain flow matching, and
    "correction_norm", the mean length of the correction, are for the log.

    x_t, x0, x1: [B, 3, H, W]; t: [B]; labels: [B, H, W], 0 to N - 1, anything where the mask is 0;
    codes: [N, 3]; mask: [B, 1, H, W] or [B, H, W], 1 where a pixel counts, None if all do. Arrays
    or Vars; all arithmetic is float32. weight, schedule: of the correction, as in (7); a weight of
    0 is plain flow matching. tau, eps: as in (4). Raises ValueError for wrong shapes, an unknown
    schedule, a weight, tau or eps outside `presets.RANGES`, and labels outside the classes where
    they count.
    """
    _check_shapes(velocity, x_t, x0, x1, t, labels, codes, mask)
    w = _checked_schedule(weight, tau, eps, schedule)
    class_ids, known = _known(labels, codes.shape[0], mask)
    per_pixel = np.float32(1 / max(known.sum(dtype=np.float64), 1))

    # The velocity alone has a gradient.
    with jt.no_grad():
        inputs = (x_t, x0, x1, t, codes, known, per_pixel)
        constants = [as_var(x).detach().float32() for x in inputs]
    v = as_var(velocity).float32()
    return _losses(v, *constants, class_ids, weight, tau, eps, w)


def _checked_schedule(weight: float, tau: float, eps: float, schedule: str) -> Callable:
    """The schedule's w(t); raises ValueError for options that `flow_loss` refuses."""
    if schedule not in SCHEDULES:
        raise ValueError(
            f"flow_loss: unknown schedule {schedule!r}; choose one of {', '.join(SCHEDULES)}"
        )
    # Without a weight there is no correction, and an eps of 0 does no harm.
    check_numbers("flow_loss: ", weight=weight, tau=tau, **({"eps": eps} if weight or eps else {}))
    return SCHEDULES[schedule]


def _losses(v, x_t, x0, x1, t, codes, known, per_pixel, class_ids, weight, tau, eps, w):
    """`flow_loss` in float32 Vars; known: [B, 1, H, W], with sum 1 / per_pixel; w: of (7)."""
    with jt.no_grad():
        v_t = x1 - x0  # (1) [B, 3, H, W]
    if weight == 0:
        fm = _mean_square(v - v_t, known, per_pixel)
        return {"loss": fm, "fm": fm.detach(), "correction_norm": jt.zeros(1).stop_grad()}

    # The target is a constant, and so is the estimate in it: `detach` cuts it off the velocity,
    # where stop_grad would mark the velocity itself.
    with jt.no_grad():
        time, v_constant = t.reshape(-1, 1, 1, 1), v.detach()
        xhat1 = x_t + (1 - time) * v_constant  # (2) [B, 3, H, W]
        grad_phi, _ = correction(xhat1, class_ids, codes, tau, eps)  # (3) to (6) [B, 3, H, W]
        pull = weight * w(time) * grad_phi
        target = v_t - pull  # (7) [B, 3, H, W]
        fm = _mean_square(v_constant - v_t, known, per_pixel)
        norm = _total(jt.sqrt((pull * pull).sum(1, keepdims=True)) * known) * per_pixel
    loss = _mean_square(v - target, known, per_pixel)  # (8)
    return {"loss": loss, "fm": fm, "correction_norm": norm}


def training_loss(
    network,
    codes: np.ndarray,
    weight: float = 1.0,
    tau: float = 1.0,
    eps: float = 1e-2,
    schedule: str = "static",
    shift: float = 1.0,
    alignment: Optional[Callable] = None,
    block: int = 1,
) -> Callable[[Mapping[str, np.ndarray]], Dict[str, object]]:
    """The loss of a network as a function of a batch of `dataset.CropBatches`, whose times, and
    noise where the source has some, are in it: loss(batch) -> {"loss", "fm", "correction_norm"}.

    These are means over all pixels, where a pixel without a label counts 0: the means of
    `flow_loss` times the fraction of pixels with a label. So micro-batches add up to their batch
    however many labels each of them has. weight, tau, eps, schedule: of `flow_loss`; shift: of
    `shifted`. alignment: a `repa.Alignment`, which gets the tokens after the transformer block of
    that number, counted from 1. Raises ValueError as `flow_loss` does.
    """
    kind, w = network.config.source, _checked_schedule(weight, tau, eps, schedule)
    rows = np.asarray(codes, np.float32)

    def loss(batch: Mapping[str, np.ndarray]) -> Dict[str, object]:
        # A point of the path from source to codes, made on the device from bytes.
        images, x1, ids, known = _maps(batch["images"], batch["labels"], rows)
        noise = as_var(batch["noise"]) if "noise" in batch else None
        with jt.no_grad():
            x0 = source(kind, images, noise)  # [B, 3, H, W]
            t = jt.array(shifted(batch["t"], shift).astype(np.float32))  # [B]
            x_t = interpolate(x0, x1, t)  # (1) [B, 3, H, W]

        # The network's velocity there.
        image = images if network.config.sees_image else None
        output = network(x_t, t, image, tap=block if alignment else None)
        velocity, tokens = output if alignment else (output, None)

        # Its loss, as means over all pixels.
        count = np.count_nonzero(batch["labels"] != IGNORED)
        per_pixel = np.float32(1 / max(count, 1))
        constants = (x_t, x0, x1, t, jt.array(rows), known, jt.array(per_pixel))
        losses = _losses(velocity.float32(), *constants, ids, weight, tau, eps, w)
        fraction = jt.array(np.array([count / batch["labels"].size], np.float32))
        losses = {name: value * fraction for name, value in losses.items()}
        return alignment(losses, tokens, images) if alignment else losses

    return loss


def _maps(images: np.ndarray, labels: np.ndarray, codes: np.ndarray):
    """Vars of a batch's bytes: images float32 [B, 3, H, W] in [-1, 1]; x1 float32 [B, 3, H, W], the
    codes, 0 without a label; class ids int32 [B, H, W], -1 without; known float32 [B, 1, H, W].

    Images and codes are looked up, so they are the numbers that NumPy would compute.
    """
    with jt.no_grad():
        shape, levels, rows = list(images.shape), jt.array(images), jt.array(codes)
        signed = jt.array(SIGNED).reindex(shape, ["@e0(i0, i1, i2, i3)"], extras=[levels])
        known = jt.array(labels) != IGNORED  # [B, H, W]
        ids = jt.ternary(known, jt.array(labels).int32(), jt.array(-1))
        x1 = rows.reindex(shape, ["@e0(i0, i2, i3)", "i1"], extras=[ids])  # 0 for an id of -1
        return signed, x1, ids, known.float32().unsqueeze(1)


def _mean_square(difference, known, per_pixel):
    """The mean over channels and pixels of difference^2 [B, 3, H, W], weighted by known
    [B, 1, H, W], whose sum is 1 / per_pixel.

    What does not count is cut away before it is squared: 0 times infinity would be NaN.
    """
    weights = known.expand(difference.shape)
    d = jt.ternary(weights > 0, difference, jt.zeros_like(difference))
    return _total(weights * d * d) * (per_pixel / 3)


def _total(values):
    """The sum of [B, C, H, W], axis by axis: one float32 sum over millions of pixels loses
    digits.
    """
    return values.sum(3).sum(2).sum()


def _known(labels, classes: int, mask):
    """(class ids int32 [B, H, W], -1 where they do not count; weights float32 [B, 1, H, W]), as
    arrays. Raises ValueError for other labels.
    """
    ids = np.asarray(labels.numpy() if isinstance(labels, jt.Var) else labels)
    if ids.dtype.kind not in "iu":
        raise ValueError(f"flow_loss: labels are {ids.dtype}; expected integers")

    batch, height, width = ids.shape
    if mask is None:
        weights = np.ones(ids.shape, np.float32)
    else:
        weights = np.asarray(mask.numpy() if isinstance(mask, jt.Var) else mask, np.float32)
    weights = weights.reshape(batch, 1, height, width)
    counts = weights[:, 0] > 0  # [B, H, W]
    check_labels("flow_loss", ids, classes, counts)
    return np.where(counts, ids, -1).astype(np.int32), weights


def _check_shapes(velocity, x_t, x0, x1, t, labels, codes, mask) -> None:
    shape = list(velocity.shape)
    if len(shape) != 4 or shape[1] != 3:
        raise ValueError(f"flow_loss: velocity of shape {shape}; expected [B, 3, H, W]")
    batch, _, height, width = shape
    flat, planes = [batch, height, width], [batch, 1, height, width]

    for name, array, expected in (
        ("x_t", x_t, shape),
        ("x0", x0, shape),
        ("x1", x1, shape),
        ("t", t, [batch]),
        ("labels", labels, flat),
        ("codes", codes, [codes.shape[0], 3]),
    ):
        if list(array.shape) != expected:
            raise ValueError(
                f"flow_loss: {name} of shape {list(array.shape)}; expected {expected}, for a "
                f"velocity of shape {shape}"
            )
    if mask is not None and list(mask.shape) not in (planes, flat):
        raise ValueError(
            f"flow_loss: mask of shape {list(mask.shape)}; expected {planes} or {flat}"
        )
