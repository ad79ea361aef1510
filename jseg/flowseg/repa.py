"""Representation alignment (REPA, Yu et al. 2024): the network's inner tokens are drawn to those of
a frozen encoder of the image.

As in PixNerd: tokens after block 8 through three linear layers with SiLU, held against DINOv2
ViT-B/14's last patch tokens of the clean image, by 1 minus their cosine; weight 0.5. FlowSeg
reports +2.9 mIoU for it (second-hand); a training runs without it. Mirrors training_repa.py of the
official PixNerd code, with its names proj.0.{0,2,4}.
"""

from __future__ import annotations

from typing import Callable, Dict

import numpy as np

from jseg.flowseg.dinov2 import resize
from jseg.nn.layers import Linear, SiLU, as_var, nn
from jseg.runtime import jt

BLOCK = 8  # the transformer block, counted from 1, whose output is aligned
WEIGHT = 0.5
EPS = 1e-8


class Alignment(nn.Module):
    """alignment(losses, tokens [B, L, width], image [B, 3, H, W] in [-1, 1]) -> the losses with
    "loss" increased and "repa" added.

    encoder: image -> tokens [B, L, encoder_width], such as `Dinov2`. patch, encoder_patch: the
    image is resized by encoder_patch / patch, so that both networks see the same L patches. The
    parameters are those of the projector alone, to be trained with the network's and dropped
    afterwards; gradients reach them and `tokens`. Raises ValueError where the tokens do not match.
    """

    def __init__(
        self,
        encoder: Callable,
        width: int,
        patch: int = 16,
        weight: float = WEIGHT,
        encoder_width: int = 768,
        encoder_patch: int = 14,
    ):
        self.proj = nn.Sequential(
            nn.Sequential(
                Linear(width, width),
                SiLU(),
                Linear(width, width),
                SiLU(),
                Linear(width, encoder_width),
            )
        )
        # In a function, where the encoder is no part of this module's parameters and state.
        self._targets = lambda image: targets(encoder, image, patch, encoder_patch)
        self._weight = weight

    def execute(self, losses: Dict[str, object], tokens, image) -> Dict[str, object]:
        repa = distance(self.proj(tokens), self._targets(image))
        return {**losses, "loss": losses["loss"] + self._weight * repa, "repa": repa}


def targets(encoder: Callable, image, patch: int, encoder_patch: int = 14):
    """The encoder's tokens [B, L, D], constants, of an image [B, 3, H, W] in [-1, 1], one for each
    patch of `patch` pixels.

    Raises ValueError for H or W that is no multiple of the patch.
    """
    x = as_var(image)
    height, width = x.shape[2:]
    if height % patch or width % patch:
        raise ValueError(
            f"REPA: an image of {width}x{height}; expected multiples of the patch, {patch}"
        )
    rows, columns = height // patch, width // patch
    with jt.no_grad():
        x = resize(x.detach(), rows * encoder_patch, columns * encoder_patch)
        return encoder(x).detach()


def distance(tokens, target):
    """The mean over tokens of 1 - cosine, of tokens and target [B, L, D], as a Var [1].

    0 for equal directions, 2 for opposite ones.
    """
    if list(tokens.shape) != list(target.shape):
        raise ValueError(
            f"REPA: projected tokens {list(tokens.shape)}, encoder's tokens {list(target.shape)}; "
            "expected equal shapes: the tokens of the network's patches, without others, and the "
            "encoder's width"
        )
    # Each is divided by its own length: a product of two small lengths underflows.
    cosine = (_unit(tokens) * _unit(target)).sum(-1)  # [B, L]
    return (1 - cosine).mean()


def _unit(x):
    x = x.float32()
    return x / jt.sqrt(jt.maximum((x * x).sum(-1, keepdims=True), np.float32(EPS**2)))
