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

In training, `unet.recompute = True` keeps only the inputs of blocks with large maps; their SPADE
convolutions are then part of what is computed again.
"""

from __future__ import annotations

from typing import List, NamedTuple

import numpy as np

from jseg.configs import UNetConfig
from jseg.ldm import modulations
from jseg.ldm.blocks import AttentionBlock, LabelMaps, ResBlock, SpadeResBlock, joined
from jseg.ldm.schedule import TIMESTEPS
from jseg.nn.convolution import Conv3x3, conv3x3
from jseg.nn.layers import GroupNorm, Linear, SiLU, as_var, nn, silu, timestep_table, zero
from jseg.nn.recompute import recompute
from jseg.runtime import jt

SMALL_LEVEL = 2  # halvings from which on maps are small: a sixteenth of the latent's positions


class Features(NamedTuple):
    """What the encoder half hands to the decoder half."""

    skips: List  # of every input block, coarse last; each [B, C_i, h_i, w_i]
    embedding: object  # silu of the time embedding [B, 4 channels]


class UNet(nn.Module):
    """UNet(UNETS["release"])(x [B, 3, h, w], t [B] int, y [B, classes, h, w] one-hot) ->
    [B, 6, h, w]: noise, then the interpolation of its variance.

    zero_init: every block's last layer starts at zero, so a block starts as its skip connection (as
    in SDM and ADM). recompute: an attribute; True trains with the activation memory of the inputs
    of blocks with large maps, which are computed again in the backward pass.
    """

    def __init__(self, config: UNetConfig, zero_init: bool = True):
        self._config = config
        self.recompute = False
        base, embedding = config.channels, 4 * config.channels

        # The underscore keeps the table out of the state dict.
        self._table = jt.array(timestep_table(TIMESTEPS, base)).stop_grad()
        self.time_embed = nn.Sequential(
            Linear(base, embedding), SiLU(), Linear(embedding, embedding)
        )

        # encoder
        first = Conv3x3(config.latent_channels, base * config.channel_mult[0])
        self.input_blocks = nn.ModuleList([nn.Sequential(first)])
        widths = self._build_encoder(embedding)

        # middle
        channels = widths[-1]
        self.middle_block = nn.Sequential(
            SpadeResBlock(channels, channels, embedding, config),
            AttentionBlock(channels, config),
            SpadeResBlock(channels, channels, embedding, config),
        )

        # decoder
        channels = self._build_decoder(channels, widths, embedding)
        self.out = nn.Sequential(
            GroupNorm(config.groups, channels),
            SiLU(),
            Conv3x3(channels, 2 * config.latent_channels),
        )

        # Where a block stands: the halvings of the map that it gets, and the place of a conditioned
        # one in the order of use.
        level = self.out.level = 0
        for block in self._blocks():
            block.level = level
            level += getattr(block, "down", False) - getattr(block, "up", False)
        for place, block in enumerate(self.conditioned_blocks()):
            block.place = place

        # release: its zero_module changes nothing in Jittor, as zero_init=False here; here: zero,
        # as it was meant.
        if zero_init:
            for block in self._blocks():
                zero(block.proj_out if isinstance(block, AttentionBlock) else block.out_layers[-1])
            zero(self.out[2])

    @property
    def config(self) -> UNetConfig:
        return self._config

    def execute(self, x, t, y):
        features = self.encode(x, t)
        if self.recompute and not jt.flags.no_grad:
            return self.decode(features, self.label_maps(y))  # [B, 6, h, w]
        return self.decode(features, self.condition(y))  # [B, 6, h, w]

    def encode(self, x, t) -> Features:
        """The half without the label map: x [B, 3, h, w], t [B] original timesteps 0 ... 999 (an
        array is checked, a Var is not).
        """
        x, t = self._checked_latent(x), _checked_timesteps(t)
        embedding = silu(self.time_embed(self._table[t]))  # [B, E]

        # encoder
        h = self.input_blocks[0][0](x)  # [B, C, h, w]
        skips = [h]
        for residual, *attention in list(self.input_blocks)[1:]:
            h = self._run(residual, h, embedding)  # [B, C_i, h_i, w_i]
            for layer in attention:
                h = self._run(layer, h)  # [B, C_i, h_i, w_i]
            skips.append(h)
        return Features(skips, embedding)

    def decode(self, features: Features, conditions, variance: bool = True):
        """The half that sees the label map -> [B, 6, h, w], or without `variance` only the noise
        [B, 3, h, w].

        conditions: `condition(y)`; with `label_maps(y)`, blocks are computed again for the
        gradient; with `with_null(y, ...)`, the features are repeated, for the label maps and then
        for the null map.
        """
        repeats = _batch(conditions[0]) // features.embedding.shape[0]
        skips = [_repeat(skip, repeats) for skip in features.skips]
        embedding = _repeat(features.embedding, repeats)

        # middle
        h = skips[-1]  # [R B, C, h_i, w_i]
        for layer in self.middle_block:
            h = self._run_conditioned(layer, conditions, embedding, h)

        # decoder
        for block, skip in zip(self.output_blocks, reversed(skips)):
            first, *others = block
            h = self._run_conditioned(first, conditions, embedding, h, skip)  # [R B, C_i, h_i, w_i]
            for layer in others:
                h = self._run_conditioned(layer, conditions, embedding, h)

        # noise, and the interpolation of its variance where that is wanted
        if variance:
            return self._run(self.out, h).float32()  # [R B, 6, h, w]
        norm, _, conv = self.out
        noise = slice(self.config.latent_channels)
        weight, bias = conv.weight[noise], conv.bias[noise]
        return conv3x3(silu(norm(h)), weight, bias).float32()  # [R B, 3, h, w]

    def condition(self, y, low: bool = False) -> List:
        """Every SPADE modulation for one-hot label maps y [B, classes, h, w]: a pair per
        conditioned block, in order of use.

        388 MB per label map at release size; reuse it for all steps of a stage and drop it with the
        map. low: those of large maps are computed again at every use, to the same numbers.
        """
        return modulations.conditions(self, y, low)

    def with_null(self, y, conditions: List) -> List:
        """`condition(y)` for the label maps y and, once for all of them, for the null map."""
        return modulations.with_null(self, y, conditions)

    def label_maps(self, y) -> List[LabelMaps]:
        """The one-hot maps y [B, classes, h, w] at the resolutions of both norms of every
        conditioned block, in order of use.
        """
        if y.shape[1] != self.config.classes:
            raise ValueError(
                f"condition: got a label map with {y.shape[1]} columns; this network has "
                f"{self.config.classes} classes"
            )
        # Nearest, as the release's interpolate: row floor(i h / H).
        y, levels = as_var(y), range(len(self.config.channel_mult))
        pyramid = [y[:, :, :: 2**i, :: 2**i] for i in levels]
        return [
            LabelMaps(pyramid[block.level], pyramid[block.level - block.up])
            for block in self.conditioned_blocks()
        ]

    def _run(self, layer, *inputs):
        return recompute(layer, *inputs) if self._recomputes(layer) else layer(*inputs)

    def _recomputes(self, layer) -> bool:
        """Whether a layer is computed again in the backward pass."""
        # release: every block is; here: not those of small maps, which hold little and take long.
        return self.recompute and layer.level - getattr(layer, "up", False) < SMALL_LEVEL

    def _run_conditioned(self, layer, conditions, embedding, *parts):
        """A layer that may see the label map, for the groups of channels `parts` of its input."""
        if not isinstance(layer, SpadeResBlock):
            return self._run(layer, *parts)
        condition = conditions[layer.place]
        if isinstance(condition, LabelMaps):
            inputs = *condition, embedding, *parts
            again = self._recomputes(layer)
            return recompute(layer.from_maps, *inputs) if again else layer.from_maps(*inputs)
        if isinstance(condition, modulations.OnDemand):
            h = layer(joined(parts), condition.modulations(), embedding)
            return h.sync()  # else Jittor might compute those of all blocks first
        if isinstance(condition, modulations.WithNull):
            return layer(joined(parts), condition.kept, embedding)
        return layer(joined(parts), condition, embedding)

    def _blocks(self) -> List:
        """Every residual and attention block, in order of use."""
        blocks = [*list(self.input_blocks)[1:], self.middle_block, *self.output_blocks]
        return [layer for block in blocks for layer in block]

    def conditioned_blocks(self) -> List[SpadeResBlock]:
        """The blocks that see the label map, in order of use."""
        return [block for block in self._blocks() if isinstance(block, SpadeResBlock)]

    def _checked_latent(self, x):
        x, multiple = as_var(x), 2 ** (len(self.config.channel_mult) - 1)
        channels, height, width = x.shape[1:]
        if channels != self.config.latent_channels or height % multiple or width % multiple:
            raise ValueError(
                f"UNet: got a latent of shape {list(x.shape)}; expected [B, "
                f"{self.config.latent_channels}, h, w] with h and w multiples of {multiple}"
            )
        return x

    def _build_encoder(self, embedding: int) -> List[int]:
        """Append the input blocks after the first; the widths of all input blocks."""
        config = self.config
        channels = config.channels * config.channel_mult[0]
        widths, downsampling = [channels], 1
        for level, mult in enumerate(config.channel_mult):
            # blocks of this resolution
            for _ in range(config.blocks):
                width = config.channels * mult
                layers = [ResBlock(channels, width, embedding, config)]
                channels = width
                if downsampling in config.attention_downsampling:
                    layers.append(AttentionBlock(channels, config))
                self.input_blocks.append(nn.Sequential(*layers))
                widths.append(channels)

            # the halving to the next
            if level < len(config.channel_mult) - 1:
                down = ResBlock(channels, channels, embedding, config, down=True)
                self.input_blocks.append(nn.Sequential(down))
                widths.append(channels)
                downsampling *= 2
        return widths

    def _build_decoder(self, channels: int, widths: List[int], embedding: int) -> int:
        """Make the output blocks, each with an input block's skip connection; the last one's
        width.
        """
        config, skip_widths = self.config, list(widths)
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(config.channel_mult))):
            width = config.channels * config.channel_mult[level]
            for i in range(config.blocks + 1):
                inputs, channels = channels + skip_widths.pop(), width
                layers = [SpadeResBlock(inputs, channels, embedding, config)]
                if 2**level in config.attention_downsampling:
                    layers.append(AttentionBlock(channels, config))
                if level and i == config.blocks:
                    up = SpadeResBlock(channels, channels, embedding, config, up=True)
                    layers.append(up)
                self.output_blocks.append(nn.Sequential(*layers))
        return channels


def _checked_timesteps(t):
    if isinstance(t, jt.Var):
        return t
    if np.min(t) < 0 or np.max(t) >= TIMESTEPS:
        raise ValueError(
            f"UNet: got timesteps {t}; expected original timesteps 0 to {TIMESTEPS - 1}"
        )
    return jt.array(np.asarray(t, np.int32))


def _batch(condition) -> int:
    """The batch of a block's label maps or modulations."""
    if isinstance(condition, (modulations.OnDemand, modulations.WithNull)):
        return condition.batch
    first = condition[0]
    return (first if isinstance(condition, LabelMaps) else first[0]).shape[0]


def _repeat(x, times: int):
    return x if times == 1 else jt.concat([x] * times, dim=0)
