"""PatchGAN discriminator of the autoencoder's training: one logit for every patch of an image, high
where it looks real.

Mirrors NLayerDiscriminator of taming-transformers (Isola et al. 2017), with its state-dict names
and initialisation.
"""

from __future__ import annotations

from jseg.nn.layers import GroupNorm, group_norm, nn
from jseg.runtime import jt

SLOPE, EPS = 0.2, 1e-5
CHANNELS_PER_GROUP = 16
NORMS = ("group", "batch")


class Discriminator(nn.Module):
    """Discriminator(channels=64, layers=3): images x [B, 3, H, W] -> logits [B, 1, h, w], h = H /
    2^layers - 2; each sees 70 pixels across.

    norm: "group" (16 channels a group) or "batch". Batch statistics tie the images of a
    micro-batch to each other, so that micro-batches and processes would no longer add up to the
    whole batch; "batch" is there for weights trained with taming-transformers. taming: batch norm;
    here: group norm, under the same names.
    """

    def __init__(
        self, channels: int = 64, layers: int = 3, norm: str = "group", image_channels: int = 3
    ):
        if norm not in NORMS or layers < 1:
            raise ValueError(
                f"Discriminator: got norm {norm!r} and {layers} layers; expected one of "
                f"{', '.join(NORMS)}, and at least 1 layer"
            )
        self._least = 2**layers * 3
        modules = [_convolution(image_channels, channels, 2), Leaky()]
        width = channels
        for i in range(1, layers + 1):
            wider, stride = channels * min(2**i, 8), 2 if i < layers else 1
            modules += [_convolution(width, wider, stride, bias=False), _norm(norm, wider), Leaky()]
            width = wider
        self.main = nn.Sequential(*modules, _convolution(width, 1, 1))

    def execute(self, x):
        if min(x.shape[2:]) < self._least:
            raise ValueError(
                f"Discriminator: got images of {x.shape[3]}x{x.shape[2]}; expected at least "
                f"{self._least} pixels on each side"
            )
        return self.main(x)  # [B, 1, h, w]


class Leaky(nn.Module):
    """Leaky ReLU of slope 0.2, as a module because it counts in the layout's numbering."""

    def execute(self, x):
        return jt.maximum(x, SLOPE * x)  # [...]


class BatchNorm(nn.Module):
    """Batch normalisation by the batch at hand, always, which is how the discriminator is trained.

    The running statistics are only carried along, for the layout: nothing reads or changes them.
    """

    def __init__(self, channels: int):
        self.channels = channels
        self.weight = jt.ones(channels)
        self.bias = jt.zeros(channels)
        self.running_mean = jt.zeros(channels).stop_grad()
        self.running_var = jt.ones(channels).stop_grad()
        self.num_batches_tracked = jt.zeros(1, dtype="int32").stop_grad()

    def execute(self, x):
        # A group norm of one channel a group, the batch as one image.
        x = x.transpose(1, 0, 2, 3).unsqueeze(0)  # [1, C, B, H, W]
        y = group_norm(x, self.channels, EPS, self.weight, self.bias)
        return y.squeeze(0).transpose(1, 0, 2, 3)  # [B, C, H, W]


def _convolution(channels_in: int, channels_out: int, stride: int, bias: bool = True):
    conv = nn.Conv2d(channels_in, channels_out, 4, stride=stride, padding=1, bias=bias)
    conv.weight.assign(jt.init.gauss(conv.weight.shape, "float32", 0.0, 0.02))
    return conv


def _norm(kind: str, channels: int):
    groups = -(-channels // CHANNELS_PER_GROUP)
    norm = BatchNorm(channels) if kind == "batch" else GroupNorm(groups, channels, EPS)
    norm.weight.assign(jt.init.gauss(norm.weight.shape, "float32", 1.0, 0.02))
    return norm
