"""The SPADE-conditioned UNet of IIDM: noise and variance of a latent under a semantic map.

Mirrors guided_diffusion/unet.py of the release, which is the UNet of SDM (Wang et al. 2022) on the
residual blocks of Dhariwal and Nichol 2021; state-dict names and numbers are theirs. Only the order
of work differs, exactly:

- `condition(y)` computes every SPADE scale and shift once per label map; they do not depend on x or
  t;
- `encode(x, t)` does not see the label map, so one pass serves the conditional and the
  unconditional branch of guidance;
- `decode(..., variance=False)` leaves out the variance half of the last convolution, which no
  deterministic sampler reads.

In training, `unet.recompute = True` keeps the inputs of blocks only; the SPADE convolutions are
then part of what is computed again.
"""

from __future__ import annotations

from typing import Callable, List, NamedTuple, Tuple

import numpy as np

from jseg.configs import UNetConfig
from jseg.ldm.blocks import AttentionBlock, Modulation, ResBlock, SpadeResBlock, joined
from jseg.ldm.schedule import TIMESTEPS
from jseg.nn.layers import GroupNorm, SiLU, as_var, nn, silu, timestep_table, zero
from jseg.nn.recompute import recompute
from jseg.runtime import jt


class Features(NamedTuple):
    """What the encoder half hands to the decoder half."""

    skips: List  # of every input block, coarse last; each [B, C_i, h_i, w_i]
    embedding: object  # silu of the time embedding [B, 4 channels]


class UNet(nn.Module):
    """UNet(UNETS["release"])(x [B,3,h,w], t [B] int, y [B,classes,h,w] one-hot) -> [B,6,h,w]:
    noise, then variance interpolation.

    zero_init: every block's last layer starts at zero, so a block starts as its skip connection (as
    in SDM and ADM). recompute: an attribute; True trains with the activation memory of blocks'
    inputs, for about a forward pass more of work.
    """

    def __init__(self, config: UNetConfig, zero_init: bool = True):
        self._config = config
        self.recompute = False
        base, embedding = config.channels, 4 * config.channels
        self._table = jt.array(
            timestep_table(TIMESTEPS, base)
        ).stop_grad()  # underscore: not part of the state dict
        self.time_embed = nn.Sequential(
            nn.Linear(base, embedding), SiLU(), nn.Linear(embedding, embedding)
        )
        first = nn.Conv2d(config.latent_channels, base * config.channel_mult[0], 3, padding=1)
        self.input_blocks = nn.ModuleList([nn.Sequential(first)])
        widths = self._build_encoder(embedding)
        channels = widths[-1]
        self.middle_block = nn.Sequential(
            SpadeResBlock(channels, channels, embedding, config),
            AttentionBlock(channels, config),
            SpadeResBlock(channels, channels, embedding, config),
        )
        channels = self._build_decoder(channels, widths, embedding)
        self.out = nn.Sequential(
            GroupNorm(config.groups, channels),
            SiLU(),
            nn.Conv2d(channels, 2 * config.latent_channels, 3, padding=1),
        )
        # release: its zero_module changes nothing in Jittor, zero_init=False here; here: zero, as
        # meant
        if zero_init:
            for block in self._blocks():
                zero(
                    block.proj_out
                    if isinstance(block, AttentionBlock)
                    else block.out_layers[len(block.out_layers) - 1]
                )
            zero(self.out[2])

    @property
    def config(self) -> UNetConfig:
        return self._config

    def _build_encoder(self, embedding: int) -> List[int]:
        config = self.config
        channels = config.channels * config.channel_mult[0]
        widths, downsampling = [channels], 1
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.blocks):
                layers = [ResBlock(channels, config.channels * mult, embedding, config)]
                channels = config.channels * mult
                if downsampling in config.attention_downsampling:
                    layers.append(AttentionBlock(channels, config))
                self.input_blocks.append(nn.Sequential(*layers))
                widths.append(channels)
            if level < len(config.channel_mult) - 1:
                self.input_blocks.append(
                    nn.Sequential(ResBlock(channels, channels, embedding, config, down=True))
                )
                widths.append(channels)
                downsampling *= 2
        return widths

    def _build_decoder(self, channels: int, widths: List[int], embedding: int) -> int:
        config, widths = self.config, list(widths)
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(config.channel_mult))):
            width = config.channels * config.channel_mult[level]
            for i in range(config.blocks + 1):
                layers = [SpadeResBlock(channels + widths.pop(), width, embedding, config)]
                channels = width
                if 2**level in config.attention_downsampling:
                    layers.append(AttentionBlock(channels, config))
                if level and i == config.blocks:
                    layers.append(SpadeResBlock(channels, channels, embedding, config, up=True))
                self.output_blocks.append(nn.Sequential(*layers))
        return channels

    def _blocks(self) -> List:
        """Every residual and attention block, in order of use."""
        return [
            layer
            for block in list(self.input_blocks)[1:]
            + [self.middle_block]
            + list(self.output_blocks)
            for layer in block
        ]

    def label_maps(self, y) -> List[Tuple]:
        """The one-hot maps y [B, classes, h, w] at the resolutions of both norms of every
        conditioned block, in order of use.
        """
        if y.shape[1] != self.config.classes:
            raise ValueError(
                f"condition: got a label map with {y.shape[1]} columns; this network has "
                f"{self.config.classes} classes"
            )
        y, level, maps = as_var(y), len(self.config.channel_mult) - 1, []
        pyramid = [
            y[:, :, :: 2**i, :: 2**i] for i in range(level + 1)
        ]  # nearest, as the release's interpolate: row floor(i h / H)
        for block in self._blocks():
            if isinstance(block, SpadeResBlock):
                maps.append((pyramid[level], pyramid[level - block.up]))
                level -= block.up
        return maps

    def condition(self, y) -> List[Tuple[Modulation, Modulation]]:
        """Every SPADE modulation for one-hot label maps y [B, classes, h, w]: a pair per
        conditioned block, in order of use.

        388 MB per label map at release size; reuse it for all steps of a stage and drop it with the
        map.
        """
        conditioned = [block for block in self._blocks() if isinstance(block, SpadeResBlock)]
        return [block.condition(*maps) for block, maps in zip(conditioned, self.label_maps(y))]

    def encode(self, x, t) -> Features:
        """The half without the label map: x [B, 3, h, w], t [B] original timesteps 0 ... 999 (an
        array is checked, a Var is not).
        """
        x, smallest = as_var(x), 2 ** (len(self.config.channel_mult) - 1)
        if (
            x.shape[1] != self.config.latent_channels
            or x.shape[2] % smallest
            or x.shape[3] % smallest
        ):
            raise ValueError(
                f"UNet: got a latent of shape {list(x.shape)}; expected [B, "
                f"{self.config.latent_channels}, h, w] with h and w multiples of {smallest}"
            )
        if not isinstance(t, jt.Var):
            if np.min(t) < 0 or np.max(t) >= TIMESTEPS:
                raise ValueError(
                    f"UNet: got timesteps {t}; expected original timesteps 0 to {TIMESTEPS - 1}"
                )
            t = jt.array(np.asarray(t, np.int32))
        embedding = silu(self.time_embed(self._table[t]))  # [B, E]
        skips = [self.input_blocks[0][0](x)]  # [B, C, h, w]
        for block in list(self.input_blocks)[1:]:
            h = self._run(block[0], skips[-1], embedding)  # [B, C_i, h_i, w_i]
            for layer in list(block)[1:]:
                h = self._run(layer, h)  # [B, C_i, h_i, w_i]
            skips.append(h)
        return Features(skips, embedding)

    def decode(self, features: Features, modulations, variance: bool = True):
        """The half that sees the label map -> [B, 6, h, w], or only the noise [B, 3, h, w] without
        `variance`.

        `modulations` may hold a multiple of the features' batch (conditional maps, then null maps):
        the features are repeated.
        """
        repeats = modulations[0][0][0].shape[0] // features.embedding.shape[0]
        embedding = _repeat(features.embedding, repeats)
        remaining = iter(modulations)
        h = self._decode(
            [_repeat(skip, repeats) for skip in features.skips],
            lambda block, *parts: block(joined(parts), next(remaining), embedding),
        )  # [R B, C, h, w]
        last = self.out[2]
        kept = last.weight.shape[0] if variance else self.config.latent_channels
        return nn.conv2d(
            silu(self.out[0](h)), last.weight[:kept], last.bias[:kept], padding=1
        )  # [R B, 6 or 3, h, w]

    def _decode(self, skips: List, conditioned: Callable):
        """Middle and decoder half; conditioned(block, *groups of channels of its input) runs a
        block that sees the label map.
        """
        h = skips[-1]
        for layer in self.middle_block:
            h = (
                conditioned(layer, h) if isinstance(layer, SpadeResBlock) else self._run(layer, h)
            )  # [B, C, h_i, w_i]
        for block, skip in zip(self.output_blocks, reversed(skips)):
            h = conditioned(block[0], h, skip)  # [B, C, h_i, w_i]
            for layer in list(block)[1:]:
                h = (
                    conditioned(layer, h)
                    if isinstance(layer, SpadeResBlock)
                    else self._run(layer, h)
                )
        return h

    def _run(self, layer, *inputs):
        return recompute(layer, *inputs) if self.recompute else layer(*inputs)

    def execute(self, x, t, y):
        skips, embedding = features = self.encode(x, t)
        if not self.recompute or jt.flags.no_grad:
            return self.decode(features, self.condition(y))  # [B, 6, h, w]
        maps = iter(self.label_maps(y))
        h = self._decode(
            skips, lambda block, *parts: recompute(block.from_maps, *next(maps), embedding, *parts)
        )
        return recompute(self.out, h)  # [B, 6, h, w]


def _repeat(x, times: int):
    return x if times == 1 else jt.concat([x] * times, dim=0)
