"""VQ autoencoder of the latent-diffusion branch: image <-> latent, with a codebook (VQ-f4 in the
release).

Mirrors models/autoencoder/{model,quantize,autoencoder}.py of the release (the VQ-GAN of Esser et
al. 2021 in the latent-diffusion variant of Rombach et al. 2022); state-dict names are theirs.
Latents are taken before the quantiser and are not scaled. Whole maps exist only at the latent's
resolution: above it, layers run in strips (`strips.py`), with the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

from jseg.configs import AutoencoderConfig
from jseg.ldm import strips
from jseg.ldm.nearest_entry import nearest_entry
from jseg.nn.convolution import Conv3x3
from jseg.nn.layers import GroupNorm, Pointwise, as_var, attention, from_tokens, nn, to_tokens
from jseg.runtime import jt

EPS = 1e-6


class ResnetBlock(nn.Module):
    """norm, silu, 3x3, norm, silu, 3x3 plus the (projected) input; works on a list of strips."""

    def __init__(self, channels_in: int, channels_out: int, groups: int):
        self.norm1 = GroupNorm(groups, channels_in, EPS)
        self.conv1 = Conv3x3(channels_in, channels_out)
        self.norm2 = GroupNorm(groups, channels_out, EPS)
        self.conv2 = Conv3x3(channels_out, channels_out)
        self.projects = channels_in != channels_out
        if self.projects:
            self.nin_shortcut = Pointwise(channels_in, channels_out)

    def execute(self, x):
        """x: strips of [B, C, H, W], consumed -> strips of [B, C_out, H, W]."""
        # A strip's skip connection is projected as soon as the strip below has read its border.
        skip, h = list(x), []
        for i, y in enumerate(strips.convolve(self.conv1, x, self.norm1)):
            if self.projects:
                skip[i] = strips.settle(self.nin_shortcut(skip[i]))
            h.append(strips.settle(y))  # [B, C_out, h_i, W]

        out = []
        for y in strips.convolve(self.conv2, h, self.norm2, skip):
            out.append(strips.settle(y))  # [B, C_out, h_i, W]
        return out


class MidAttention(nn.Module):
    """Single-head attention over all positions of the coarsest map; queries in chunks, so memory
    grows with H W, not its square.
    """

    def __init__(self, channels: int, groups: int):
        self.norm = GroupNorm(groups, channels, EPS)
        self.q = Pointwise(channels, channels)
        self.k = Pointwise(channels, channels)
        self.v = Pointwise(channels, channels)
        self.proj_out = Pointwise(channels, channels)

    def execute(self, x):
        batch, channels, height, width = x.shape
        h = to_tokens(self.norm(x))  # [B HW, C]
        layers = (self.q, self.k, self.v)
        q, k, v = (layer.tokens(h).reshape(batch, -1, channels) for layer in layers)  # [B, HW, C]
        h = attention(q, k, v, channels**-0.5)  # [B, HW, C]
        h = self.proj_out.tokens(h.reshape(-1, channels))  # [B HW, C]
        return x + from_tokens(h, batch, height, width)  # [B, C, H, W]


class Mid(nn.Module):
    """Residual block, attention, residual block at the latent's resolution."""

    def __init__(self, channels: int, groups: int):
        self.block_1 = ResnetBlock(channels, channels, groups)
        self.attn_1 = MidAttention(channels, groups)
        self.block_2 = ResnetBlock(channels, channels, groups)

    def execute(self, x):
        h = self.block_1(x)  # [B, C, H, W]
        return self.block_2([strips.settle(self.attn_1(strips.join(h)))])  # [B, C, H, W]


class Resampling(nn.Module):
    """Holder of the convolution that halves (encoder) or follows the doubling (decoder)."""

    def __init__(self, channels: int, stride: int):
        halves = stride == 2
        self.conv = nn.Conv2d(channels, channels, 3, 2) if halves else Conv3x3(channels, channels)


class Level(nn.Module):
    """The residual blocks of one resolution, with `downsample` or `upsample` behind them where
    there is a next one.
    """

    def __init__(self, channels_in: int, channels_out: int, blocks: int, groups: int):
        widths = [channels_in] + [channels_out] * (blocks - 1)
        self.block = nn.ModuleList([ResnetBlock(width, channels_out, groups) for width in widths])

    def execute(self, h):
        for block in self.block:
            h = block(h)  # [B, C_out, H, W]
        return h


class Encoder(nn.Module):
    """Image -> features of 3 channels at the latent's resolution."""

    def __init__(self, config: AutoencoderConfig):
        widths = [config.channels * mult for mult in config.channel_mult]
        self.channels = config.channels
        self.multiple = config.downsampling
        self.conv_in = Conv3x3(config.picture_channels, config.channels)
        self.down = nn.ModuleList()
        for i, (width_in, width) in enumerate(zip([config.channels] + widths, widths)):
            level = Level(width_in, width, config.blocks, config.groups)
            if i < len(widths) - 1:
                level.downsample = Resampling(width, stride=2)
            self.down.append(level)
        self.mid = Mid(widths[-1], config.groups)
        self.norm_out = GroupNorm(config.groups, widths[-1], EPS)
        self.conv_out = Conv3x3(widths[-1], config.latent_channels)

    def execute(self, x):
        # full resolution
        h = strips.convolve(self.conv_in, strips.split(x, self.channels, self.multiple))
        h = [strips.settle(y) for y in h]  # [B, C, H, W]

        # down
        for level in self.down:
            h = level(h)  # [B, C_i, H_i, W_i]
            if hasattr(level, "downsample"):
                h = strips.downsample(level.downsample.conv, h)  # [B, C_i, H_i/2, W_i/2]

        # middle
        h = strips.join(self.mid([strips.join(h)]))  # [B, C, h, w]
        return self.conv_out(self.norm_out(h, activate=True))  # [B, 3, h, w]


class Decoder(nn.Module):
    """Features of the (quantised) latent -> image."""

    def __init__(self, config: AutoencoderConfig):
        widths = [config.channels * mult for mult in config.channel_mult]
        self.conv_in = Conv3x3(config.latent_channels, widths[-1])
        self.mid = Mid(widths[-1], config.groups)
        self.up = nn.ModuleList()
        # release: fills `up` from the coarsest level down under integer keys, which Jittor 1.3.11
        # then reads by position (it crashes); here: filled in ascending order, walked backwards.
        for i, width in enumerate(widths):
            width_in = widths[min(i + 1, len(widths) - 1)]
            level = Level(width_in, width, config.blocks + 1, config.groups)
            if i > 0:
                level.upsample = Resampling(width, stride=1)
            self.up.append(level)
        self.norm_out = GroupNorm(config.groups, widths[0], EPS)
        self.conv_out = Conv3x3(widths[0], config.picture_channels)

    def execute(self, z):
        # middle
        h = self.mid([strips.settle(self.conv_in(z))])  # [B, C, h, w]

        # up
        for level in reversed(list(self.up)):
            h = level(h)  # [B, C_i, H_i, W_i]
            if hasattr(level, "upsample"):
                h = strips.double(level.upsample.conv, h)  # [B, C_i, 2H_i, 2W_i]

        # full resolution
        h = strips.convolve(self.conv_out, h, self.norm_out)
        return strips.join([strips.settle(y) for y in h])  # [B, 3, H, W]


class Codebook(nn.Module):
    """The quantiser's entries: `embedding.weight` [codebook_size, latent_channels]."""

    def __init__(self, config: AutoencoderConfig):
        self.embedding = nn.Embedding(config.codebook_size, config.latent_channels)
        weight, bound = self.embedding.weight, 1.0 / config.codebook_size
        weight.assign(jt.init.uniform(weight.shape, "float32", -bound, bound))

    def codes(self, z):
        """Index of the nearest entry for each row of z [n, latent_channels] -> int32 [n]."""
        return nearest_entry(z, self.embedding.weight)


class Reconstruction(NamedTuple):
    """What a training pass of the autoencoder gives: see `Autoencoder.reconstruct`."""

    image: object  # [B, 3, H, W], about [-1, 1]
    z: object  # [B, D, h, w] before the quantiser
    quantized: object  # [B, D, h, w], each position's entry; gradients reach the codebook
    codes: object  # int32 [B, h, w], without gradient


class Autoencoder(nn.Module):
    """Autoencoder(AUTOENCODERS["release"]): `encode` images, `decode` latents; 205 tensors in the
    release's names.
    """

    def __init__(self, config: AutoencoderConfig):
        self._config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Codebook(config)
        self.quant_conv = Pointwise(config.latent_channels, config.latent_channels)
        self.post_quant_conv = Pointwise(config.latent_channels, config.latent_channels)

    @property
    def config(self) -> AutoencoderConfig:
        return self._config

    def encode(self, x):
        """Images x [B, 3, H, W] in [-1, 1] -> latents z [B, latent_channels, H/f, W/f] before
        quantising.

        H and W must be multiples of f = config.downsampling, else ValueError. Mirrors
        VQModelInterface.encode.
        """
        _, channels, height, width = x.shape
        factor = self.config.downsampling
        if channels != self.config.picture_channels or height % factor or width % factor:
            raise ValueError(
                f"encode: got an image batch of shape {list(x.shape)}; expected [B, "
                f"{self.config.picture_channels}, H, W] with H and W multiples of {factor}"
            )
        return self.quant_conv(self.encoder(as_var(x)))

    def codes(self, z):
        """Nearest codebook entry of every position: z [B, D, h, w] -> int32 [B, h, w]."""
        batch, _, height, width = z.shape
        return self.quantize.codes(to_tokens(as_var(z))).reshape(batch, height, width)

    def quantized(self, z):
        """z [B, D, h, w] with every position replaced by its nearest codebook entry."""
        return self._entries(self.codes(z))

    def decode(self, z, quantize: bool = True):
        """Latents z [B, D, h, w] -> images [B, 3, h f, w f], about [-1, 1] (not clipped);
        `quantize` as VQModelInterface.decode does.
        """
        z = as_var(z)
        if z.ndim != 4 or z.shape[1] != self.config.latent_channels:
            raise ValueError(
                f"decode: got latents of shape {list(z.shape)}; expected [B, "
                f"{self.config.latent_channels}, h, w]"
            )
        return self.decoder(self.post_quant_conv(self.quantized(z) if quantize else z))

    def reconstruct(self, x) -> Reconstruction:
        """Encode, quantise and decode images x [B, 3, H, W] for training; needs a network that is
        training (`train()`).

        The decoder's gradient passes the quantiser straight to z (van den Oord et al. 2017), so it
        never reaches the codebook; that is moved by a loss between `quantized` and `z`.
        """
        z = self.encode(x)  # [B, D, h, w]

        # Without gradient, or all of the twin's distances would be in the lazy graph at once.
        with jt.no_grad():
            codes = self.codes(z.detach())  # [B, h, w]
        quantized = self._entries(codes)  # [B, D, h, w]

        straight_through = z + (quantized - z).detach()
        image = self.decoder(self.post_quant_conv(straight_through))  # [B, 3, H, W]
        return Reconstruction(image, z, quantized, codes)

    def _entries(self, codes):
        """Codebook entries [B, D, h, w] of codes [B, h, w]."""
        return from_tokens(self.quantize.embedding(codes.reshape(-1)), *codes.shape)
