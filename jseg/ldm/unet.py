"""The SPADE-conditioned UNet of IIDM: noise and variance of a latent under a semantic map.

Mirrors guided_diffusion/unet.py of the release, which is the UNet of SDM (Wang et al. 2022) on the residual blocks of Dhariwal
and Nichol 2021; state-dict names and numbers are theirs. Only the order of work differs, exactly:

- `condition(y)` computes every SPADE scale and shift once per label map; they do not depend on x or t;
- `encode(x, t)` does not see the label map, so one pass serves the conditional and the unconditional branch of guidance;
- `decode(..., variance=False)` leaves out the variance half of the last convolution, which no deterministic sampler reads.

In training, `unet.recompute = True` keeps the inputs of blocks only; the SPADE convolutions are then part of what is computed again.
"""
from __future__ import annotations

from typing import Callable, List, NamedTuple, Tuple

import numpy as np

from jseg.layers import (Dropout, GroupNorm, Pointwise, SiLU, as_var, attention, from_tokens, nn, silu, timestep_table, to_tokens,
                         upsample, upsampled_conv, zero)
from jseg.ldm.presets import UNetConfig
from jseg.ldm.schedule import TIMESTEPS
from jseg.recompute import recompute
from jseg.runtime import jt

GROUPS = 32


class Features(NamedTuple):
    """What the encoder half hands to the decoder half."""
    skips: List                  # of every input block, coarse last; each [B, C_i, h_i, w_i]
    embedding: object            # silu of the time embedding [B, 4 channels]


Modulation = Tuple[object, object]     # (1 + gamma, beta), each [B, C, h, w], of one SPADE norm


class SpadeNorm(nn.Module):
    """Group norm without parameters, then scale and shift maps computed from the label map (SPADE, Park et al. 2019, eq. 1)."""

    def __init__(self, channels: int, classes: int, hidden: int):
        self.norm = GroupNorm(GROUPS, channels, affine=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(classes, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def condition(self, y) -> Modulation:
        """Scale and shift [B, C, h, w] for the label map y [B, classes, h, w] at this norm's resolution."""
        hidden = self.mlp_shared(y)
        return self.mlp_gamma(hidden) + 1, self.mlp_beta(hidden)

    def execute(self, x, modulation: Modulation):
        scale, shift = modulation
        return self.norm(x) * scale + shift                                                            # [B, C, h, w]


class ResBlock(nn.Module):
    """Residual block of the encoder half; `down` halves the map by average pooling."""

    def __init__(self, channels: int, channels_out: int, embedding: int, dropout: float, down: bool = False):
        self.down = down
        self.in_layers = nn.Sequential(GroupNorm(GROUPS, channels), SiLU(), nn.Conv2d(channels, channels_out, 3, padding=1))
        self.emb_layers = nn.Sequential(SiLU(), nn.Linear(embedding, 2 * channels_out))
        self.out_layers = nn.Sequential(GroupNorm(GROUPS, channels_out), SiLU(), Dropout(dropout),
                                        nn.Conv2d(channels_out, channels_out, 3, padding=1))
        self.projects = channels != channels_out
        if self.projects:
            self.skip_connection = Pointwise(channels, channels_out)

    def execute(self, x, embedding):
        h = silu(self.in_layers[0](x))                                                                 # [B, C, h, w]
        if self.down:
            h, x = halve(h), halve(x)                                                                  # [B, C, h/2, w/2]
        h = self.in_layers[2](h)                                                                       # [B, C_out, h, w]
        scale, shift = scale_and_shift(self.emb_layers, embedding)
        h = silu(self.out_layers[0](h) * scale + shift)                                                # [B, C_out, h, w]
        h = self.out_layers[3](self.out_layers[2](h))                                                  # [B, C_out, h, w]
        return (self.skip_connection(x) if self.projects else x) + h                                   # [B, C_out, h, w]


class SpadeResBlock(nn.Module):
    """Residual block of the middle and the decoder half, whose norms read the label map; `up` doubles the map."""

    def __init__(self, channels: int, channels_out: int, embedding: int, config: UNetConfig, up: bool = False):
        self.up = up
        self.in_norm = SpadeNorm(channels, config.classes, config.spade_channels)
        self.in_layers = nn.Sequential(SiLU(), nn.Conv2d(channels, channels_out, 3, padding=1))
        self.emb_layers = nn.Sequential(SiLU(), nn.Linear(embedding, 2 * channels_out))
        self.out_norm = SpadeNorm(channels_out, config.classes, config.spade_channels)
        self.out_layers = nn.Sequential(SiLU(), Dropout(config.dropout), nn.Conv2d(channels_out, channels_out, 3, padding=1))
        self.projects = channels != channels_out
        if self.projects:
            self.skip_connection = Pointwise(channels, channels_out)

    def condition(self, map_in, map_out) -> Tuple[Modulation, Modulation]:
        """Modulations of both norms from the label maps [B, classes, h, w] at their resolutions (the second is past the doubling)."""
        return self.in_norm.condition(map_in), self.out_norm.condition(map_out)

    def from_maps(self, map_in, map_out, embedding, *parts):
        """The block from its norms' label maps and the channel groups [B, C_i, h, w] of its input: what is computed again in training."""
        return self(_joined(parts), self.condition(map_in, map_out), embedding)                        # [B, C_out, h, w]

    def execute(self, x, modulations, embedding):
        h, conv = silu(self.in_norm(x, modulations[0])), self.in_layers[1]                             # [B, C, h, w]
        if self.up:
            h, x = upsampled_conv(conv, h), upsample(x)                                                # [B, C_out, 2h, 2w]
        else:
            h = conv(h)                                                                                # [B, C_out, h, w]
        scale, shift = scale_and_shift(self.emb_layers, embedding)
        h = silu(self.out_norm(h, modulations[1]) * scale + shift)                                     # [B, C_out, h, w]
        h = self.out_layers[2](self.out_layers[1](h))                                                  # [B, C_out, h, w]
        return (self.skip_connection(x) if self.projects else x) + h                                   # [B, C_out, h, w]


class AttentionBlock(nn.Module):
    """Multi-head self-attention over positions; qkv channels go head by head (q, k, v within each), the legacy order."""

    def __init__(self, channels: int, head_channels: int):
        if channels % head_channels:
            raise ValueError(f"attention: {channels} channels do not divide into heads of {head_channels}; choose another")
        self.heads = channels // head_channels
        self.norm = GroupNorm(GROUPS, channels)
        self.qkv = Pointwise(channels, 3 * channels, ndim=3)
        self.proj_out = Pointwise(channels, channels, ndim=3)

    def execute(self, x):
        batch, channels, height, width = x.shape
        head = channels // self.heads
        qkv = self.qkv.tokens(to_tokens(self.norm(x)))                                                 # [B L, 3C]
        qkv = qkv.reshape(batch, -1, self.heads, 3, head).permute(3, 0, 2, 1, 4)                       # [3, B, heads, L, D]
        q, k, v = (qkv[i].reshape(batch * self.heads, -1, head) for i in range(3))                     # [B heads, L, D]
        h = attention(q, k, v, head ** -0.5)                                                           # [B heads, L, D]
        h = h.reshape(batch, self.heads, -1, head).transpose(0, 2, 1, 3).reshape(-1, channels)         # [B L, C]
        return x + from_tokens(self.proj_out.tokens(h), batch, height, width)                          # [B, C, h, w]


def halve(x):
    """2x2 average pooling: [B, C, h, w] -> [B, C, h/2, w/2]."""
    batch, channels, height, width = x.shape
    if height % 2 or width % 2:
        raise ValueError(f"UNet: a map of {width}x{height} cannot be halved; its sides must be multiples of 2 ** (levels - 1)")
    return x.reshape(batch, channels, height // 2, 2, width // 2, 2).mean((3, 5))


def scale_and_shift(layers, embedding):
    """(1 + scale, shift), each [B, C, 1, 1], from the activated time embedding [B, E]."""
    both = layers[1](embedding)
    channels = both.shape[1] // 2
    return (both[:, :channels] + 1).reshape(-1, channels, 1, 1), both[:, channels:].reshape(-1, channels, 1, 1)


class UNet(nn.Module):
    """UNet(UNETS["release"])(x [B,3,h,w], t [B] int, y [B,classes,h,w] one-hot) -> [B,6,h,w]: noise, then variance interpolation.

    zero_init: every block's last layer starts at zero, so a block starts as its skip connection (as in SDM and ADM).
    recompute: an attribute; True trains with the activation memory of blocks' inputs, for about a forward pass more of work.
    """

    def __init__(self, config: UNetConfig, zero_init: bool = True):
        self._config = config
        self.recompute = False
        base, embedding = config.channels, 4 * config.channels
        self._table = jt.array(timestep_table(TIMESTEPS, base)).stop_grad()       # underscore: not part of the state dict
        self.time_embed = nn.Sequential(nn.Linear(base, embedding), SiLU(), nn.Linear(embedding, embedding))
        first = nn.Conv2d(config.latent_channels, base * config.channel_mult[0], 3, padding=1)
        self.input_blocks = nn.ModuleList([nn.Sequential(first)])
        widths = self._build_encoder(embedding)
        channels = widths[-1]
        self.middle_block = nn.Sequential(SpadeResBlock(channels, channels, embedding, config),
                                          AttentionBlock(channels, config.head_channels),
                                          SpadeResBlock(channels, channels, embedding, config))
        channels = self._build_decoder(channels, widths, embedding)
        self.out = nn.Sequential(GroupNorm(GROUPS, channels), SiLU(), nn.Conv2d(channels, 2 * config.latent_channels, 3, padding=1))
        if zero_init:                      # release: its zero_module changes nothing in Jittor, zero_init=False here; here: zero, as meant
            for block in self._blocks():
                zero(block.proj_out if isinstance(block, AttentionBlock) else block.out_layers[len(block.out_layers) - 1])
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
                layers = [ResBlock(channels, config.channels * mult, embedding, config.dropout)]
                channels = config.channels * mult
                if downsampling in config.attention_downsampling:
                    layers.append(AttentionBlock(channels, config.head_channels))
                self.input_blocks.append(nn.Sequential(*layers))
                widths.append(channels)
            if level < len(config.channel_mult) - 1:
                self.input_blocks.append(nn.Sequential(ResBlock(channels, channels, embedding, config.dropout, down=True)))
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
                if 2 ** level in config.attention_downsampling:
                    layers.append(AttentionBlock(channels, config.head_channels))
                if level and i == config.blocks:
                    layers.append(SpadeResBlock(channels, channels, embedding, config, up=True))
                self.output_blocks.append(nn.Sequential(*layers))
        return channels

    def _blocks(self) -> List:
        """Every residual and attention block, in order of use."""
        return [layer for block in list(self.input_blocks)[1:] + [self.middle_block] + list(self.output_blocks) for layer in block]

    def label_maps(self, y) -> List[Tuple]:
        """The one-hot maps y [B, classes, h, w] at the resolutions of both norms of every conditioned block, in order of use."""
        if y.shape[1] != self.config.classes:
            raise ValueError(f"condition: got a label map with {y.shape[1]} columns; this network has {self.config.classes} classes")
        y, level, maps = as_var(y), len(self.config.channel_mult) - 1, []
        pyramid = [y[:, :, ::2 ** i, ::2 ** i] for i in range(level + 1)]   # nearest, as the release's interpolate: row floor(i h / H)
        for block in self._blocks():
            if isinstance(block, SpadeResBlock):
                maps.append((pyramid[level], pyramid[level - block.up]))
                level -= block.up
        return maps

    def condition(self, y) -> List[Tuple[Modulation, Modulation]]:
        """Every SPADE modulation for one-hot label maps y [B, classes, h, w]: a pair per conditioned block, in order of use.

        388 MB per label map at release size; reuse it for all steps of a stage and drop it with the map.
        """
        conditioned = [block for block in self._blocks() if isinstance(block, SpadeResBlock)]
        return [block.condition(*maps) for block, maps in zip(conditioned, self.label_maps(y))]

    def encode(self, x, t) -> Features:
        """The half without the label map: x [B, 3, h, w], t [B] original timesteps 0 ... 999 (an array is checked, a Var is not)."""
        x, smallest = as_var(x), 2 ** (len(self.config.channel_mult) - 1)
        if x.shape[1] != self.config.latent_channels or x.shape[2] % smallest or x.shape[3] % smallest:
            raise ValueError(f"UNet: got a latent of shape {list(x.shape)}; expected [B, {self.config.latent_channels}, h, w] "
                             f"with h and w multiples of {smallest}")
        if not isinstance(t, jt.Var):
            if np.min(t) < 0 or np.max(t) >= TIMESTEPS:
                raise ValueError(f"UNet: got timesteps {t}; expected original timesteps 0 to {TIMESTEPS - 1}")
            t = jt.array(np.asarray(t, np.int32))
        embedding = silu(self.time_embed(self._table[t]))                                              # [B, E]
        skips = [self.input_blocks[0][0](x)]                                                           # [B, C, h, w]
        for block in list(self.input_blocks)[1:]:
            h = self._run(block[0], skips[-1], embedding)                                              # [B, C_i, h_i, w_i]
            for layer in list(block)[1:]:
                h = self._run(layer, h)                                                                # [B, C_i, h_i, w_i]
            skips.append(h)
        return Features(skips, embedding)

    def decode(self, features: Features, modulations, variance: bool = True):
        """The half that sees the label map -> [B, 6, h, w], or only the noise [B, 3, h, w] without `variance`.

        `modulations` may hold a multiple of the features' batch (conditional maps, then null maps): the features are repeated.
        """
        repeats = modulations[0][0][0].shape[0] // features.embedding.shape[0]
        embedding = _repeat(features.embedding, repeats)
        remaining = iter(modulations)
        h = self._decode([_repeat(skip, repeats) for skip in features.skips],
                         lambda block, *parts: block(_joined(parts), next(remaining), embedding))      # [R B, C, h, w]
        last = self.out[2]
        kept = last.weight.shape[0] if variance else self.config.latent_channels
        return nn.conv2d(silu(self.out[0](h)), last.weight[:kept], last.bias[:kept], padding=1)        # [R B, 6 or 3, h, w]

    def _decode(self, skips: List, conditioned: Callable):
        """Middle and decoder half; conditioned(block, *groups of channels of its input) runs a block that sees the label map."""
        h = skips[-1]
        for layer in self.middle_block:
            h = conditioned(layer, h) if isinstance(layer, SpadeResBlock) else self._run(layer, h)     # [B, C, h_i, w_i]
        for block, skip in zip(self.output_blocks, reversed(skips)):
            h = conditioned(block[0], h, skip)                                                         # [B, C, h_i, w_i]
            for layer in list(block)[1:]:
                h = conditioned(layer, h) if isinstance(layer, SpadeResBlock) else self._run(layer, h)
        return h

    def _run(self, layer, *inputs):
        return recompute(layer, *inputs) if self.recompute else layer(*inputs)

    def execute(self, x, t, y):
        skips, embedding = features = self.encode(x, t)
        if not self.recompute or jt.flags.no_grad:
            return self.decode(features, self.condition(y))                                            # [B, 6, h, w]
        maps = iter(self.label_maps(y))
        h = self._decode(skips, lambda block, *parts: recompute(block.from_maps, *next(maps), embedding, *parts))
        return recompute(self.out, h)                                                                  # [B, 6, h, w]


def _joined(parts):
    return parts[0] if len(parts) == 1 else jt.concat(list(parts), dim=1)


def _repeat(x, times: int):
    return x if times == 1 else jt.concat([x] * times, dim=0)
