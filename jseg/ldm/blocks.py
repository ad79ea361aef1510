"""The blocks of IIDM's UNet: residual blocks with and without SPADE, and self-attention.

Mirrors the blocks of guided_diffusion/unet.py of the release (SDM, Wang et al. 2022, on Dhariwal
and Nichol 2021); state-dict names and numbers are theirs.
"""

from __future__ import annotations

from typing import NamedTuple, Tuple

from jseg.configs import UNetConfig
from jseg.nn.convolution import Conv3x3, upsample
from jseg.nn.layers import (
    Dropout,
    GroupNorm,
    Linear,
    Pointwise,
    ReLU,
    SiLU,
    attention,
    from_tokens,
    nn,
    to_tokens,
)
from jseg.runtime import jt

Modulation = Tuple[object, object]  # (1 + gamma, beta), each [B, C, h, w], of one SPADE norm


class LabelMaps(NamedTuple):
    """The one-hot maps [B, classes, h, w] at the resolutions of a conditioned block's norms."""

    map_in: object
    map_out: object  # past the doubling, where the block doubles


class SpadeNorm(nn.Module):
    """Group norm without parameters, then scale and shift maps computed from the label map (SPADE,
    Park et al. 2019, eq. 1).
    """

    def __init__(self, channels: int, config: UNetConfig):
        hidden = config.spade_channels
        self.norm = GroupNorm(config.groups, channels, affine=False)
        self.mlp_shared = nn.Sequential(Conv3x3(config.classes, hidden), ReLU())
        self.mlp_gamma = Conv3x3(hidden, channels)
        self.mlp_beta = Conv3x3(hidden, channels)

    def condition(self, y) -> Modulation:
        """Scale and shift [B, C, h, w] for the label map y [B, classes, h, w] at this norm's
        resolution.
        """
        hidden = self.mlp_shared(y)
        return self.mlp_gamma(hidden) + 1, self.mlp_beta(hidden)

    def execute(self, x, modulation: Modulation, film=None):
        """silu of the modulated norm, which `film`, (scale, shift) of the time embedding, may scale
        and shift once more.
        """
        return self.norm(x, film, activate=True, modulation=modulation)  # [B, C, h, w]


class ResBlock(nn.Module):
    """Residual block of the encoder half; `down` halves the map by average pooling."""

    def __init__(
        self,
        channels: int,
        channels_out: int,
        embedding: int,
        config: UNetConfig,
        down: bool = False,
    ):
        self.down = down
        self.in_layers = nn.Sequential(
            GroupNorm(config.groups, channels),
            SiLU(),
            Conv3x3(channels, channels_out),
        )
        self.emb_layers = nn.Sequential(SiLU(), Linear(embedding, 2 * channels_out))
        self.out_layers = nn.Sequential(
            GroupNorm(config.groups, channels_out),
            SiLU(),
            Dropout(config.dropout),
            Conv3x3(channels_out, channels_out),
        )
        self.projects = channels != channels_out
        if self.projects:
            self.skip_connection = Pointwise(channels, channels_out)

    def execute(self, x, embedding):
        norm, _, conv = self.in_layers
        h = norm(x, activate=True)  # [B, C, h, w]
        if self.down:
            h, x = halve(h), halve(x)  # [B, C, h/2, w/2]
        h = conv(h)  # [B, C_out, h, w]

        norm, _, dropout, conv = self.out_layers
        film = scale_and_shift(self.emb_layers, embedding)
        skip = self.skip_connection(x) if self.projects else x
        return conv(dropout(norm(h, film, activate=True)), skip)  # [B, C_out, h, w]


class SpadeResBlock(nn.Module):
    """Residual block of the middle and the decoder half, whose norms read the label map; `up`
    doubles the map.
    """

    def __init__(
        self, channels: int, channels_out: int, embedding: int, config: UNetConfig, up: bool = False
    ):
        self.up = up
        self.in_norm = SpadeNorm(channels, config)
        self.in_layers = nn.Sequential(SiLU(), Conv3x3(channels, channels_out))
        self.emb_layers = nn.Sequential(SiLU(), Linear(embedding, 2 * channels_out))
        self.out_norm = SpadeNorm(channels_out, config)
        self.out_layers = nn.Sequential(
            SiLU(), Dropout(config.dropout), Conv3x3(channels_out, channels_out)
        )
        self.projects = channels != channels_out
        if self.projects:
            self.skip_connection = Pointwise(channels, channels_out)

    def condition(self, map_in, map_out) -> Tuple[Modulation, Modulation]:
        """Modulations of both norms from the label maps [B, classes, h, w] at their resolutions
        (the second is past the doubling).
        """
        return self.in_norm.condition(map_in), self.out_norm.condition(map_out)

    def from_maps(self, map_in, map_out, embedding, *parts):
        """The block from its norms' label maps and the channel groups [B, C_i, h, w] of its input:
        what is computed again in training.
        """
        return self(joined(parts), self.condition(map_in, map_out), embedding)  # [B, C_out, h, w]

    def execute(self, x, modulations, embedding):
        modulation_in, modulation_out = modulations
        h, conv = self.in_norm(x, modulation_in), self.in_layers[1]  # [B, C, h, w]
        if self.up:
            h, x = conv.doubled(h), upsample(x)  # [B, C_out, 2h, 2w]
        else:
            h = conv(h)  # [B, C_out, h, w]

        _, dropout, conv = self.out_layers
        film = scale_and_shift(self.emb_layers, embedding)
        skip = self.skip_connection(x) if self.projects else x
        return conv(dropout(self.out_norm(h, modulation_out, film)), skip)  # [B, C_out, h, w]


class AttentionBlock(nn.Module):
    """Multi-head self-attention over positions; qkv channels go head by head (q, k, v within each),
    the legacy order.
    """

    def __init__(self, channels: int, config: UNetConfig):
        if channels % config.head_channels:
            raise ValueError(
                f"attention: {channels} channels do not divide into heads of "
                f"{config.head_channels}; choose another"
            )
        self.heads = channels // config.head_channels
        self.norm = GroupNorm(config.groups, channels)
        self.qkv = Pointwise(channels, 3 * channels, ndim=3)
        self.proj_out = Pointwise(channels, channels, ndim=3)

    def execute(self, x):
        batch, channels, height, width = x.shape
        head = channels // self.heads
        qkv = self.qkv.tokens(to_tokens(self.norm(x)))  # [B L, 3C]
        qkv = qkv.reshape(batch, -1, self.heads, 3, head).permute(3, 0, 2, 1, 4)
        q, k, v = (qkv[i].reshape(batch * self.heads, -1, head) for i in range(3))

        h = attention(q, k, v, head**-0.5)  # [B heads, L, D]
        h = h.reshape(batch, self.heads, -1, head).transpose(0, 2, 1, 3)  # [B, L, heads, D]
        h = h.reshape(-1, channels)  # [B L, C]
        return x + from_tokens(self.proj_out.tokens(h), batch, height, width)  # [B, C, h, w]


def halve(x):
    """2x2 average pooling: [B, C, h, w] -> [B, C, h/2, w/2]."""
    batch, channels, height, width = x.shape
    if height % 2 or width % 2:
        raise ValueError(
            f"UNet: a map of {width}x{height} cannot be halved; its sides must be multiples of 2 "
            "** (levels - 1)"
        )
    return x.reshape(batch, channels, height // 2, 2, width // 2, 2).mean((3, 5))


def scale_and_shift(layers, embedding):
    """(1 + scale, shift), each [B, C, 1, 1], from the activated time embedding [B, E]."""
    both = layers[1](embedding)  # [B, 2 C]
    channels = both.shape[1] // 2
    scale, shift = both[:, :channels] + 1, both[:, channels:]
    return scale.reshape(-1, channels, 1, 1), shift.reshape(-1, channels, 1, 1)


def joined(parts):
    """Maps [B, C_i, h, w] joined along their channels."""
    return parts[0] if len(parts) == 1 else jt.concat(list(parts), dim=1)
