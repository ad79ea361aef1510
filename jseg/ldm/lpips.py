"""LPIPS: the distance between images that VGG16's features see (Zhang et al. 2018).

Weights come from the user. Mirrors LPIPS of taming-transformers (a part of
richzhang/PerceptualSimilarity, version 0.1, net "vgg"), with its state-dict names; all weights are
constants. Its dropout is left out: the distance is always taken without.
"""

from __future__ import annotations

import re
from typing import Dict

import numpy as np

from jseg.checkpoint import CheckpointError, load, load_into
from jseg.nn.convolution import Conv3x3
from jseg.nn.layers import as_var, nn
from jseg.runtime import jt

# Index of the first convolution of each slice in torchvision's vgg16.features, its number of
# convolutions, its width.
SLICES = ((0, 2, 64), (5, 2, 128), (10, 3, 256), (17, 3, 512), (24, 3, 512))
LEAST_SIZE = 16
EPS = 1e-10
# What a file may lack, with the prefix of its arrays' names.
PARTS = {"the heads (lin0.model.1.weight, ...)": "lin0.", "VGG16's features": "net.slice1."}
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """lpips(reference, image), each [B, 3, H, W] in [-1, 1], H and W at least 16 -> distances
    [B]; gradients reach `image` alone.
    """

    def __init__(self):
        self.scaling_layer = Scaling()
        self.net = Features()
        for i, (_, _, width) in enumerate(SLICES):
            setattr(self, f"lin{i}", Head(width))
        for parameter in self.parameters():
            parameter.stop_grad()

    def execute(self, reference, image):
        reference, image = as_var(reference), as_var(image)
        if list(reference.shape) != list(image.shape) or min(image.shape[2:]) < LEAST_SIZE:
            raise ValueError(
                f"LPIPS: got images of shape {list(reference.shape)} and {list(image.shape)}; "
                f"expected two equal shapes [B, 3, H, W] with H and W at least {LEAST_SIZE}"
            )
        # The slices' unit features of both images; the heads weigh their squared differences.
        with jt.no_grad():
            expected = [unit(h) for h in self.net(self.scaling_layer(reference))]
        features = [unit(h) for h in self.net(self.scaling_layer(image))]  # [B, C_i, H_i, W_i]
        heads = [getattr(self, f"lin{i}") for i in range(len(SLICES))]
        first, *others = [head((a - b) * (a - b)) for head, a, b in zip(heads, expected, features)]
        return sum(others, first)  # [B]


class Scaling(nn.Module):
    """From [-1, 1] to the range of the images that VGG16 was trained on."""

    def __init__(self):
        self.shift = jt.array(np.array(SHIFT, np.float32).reshape(1, 3, 1, 1))
        self.scale = jt.array(np.array(SCALE, np.float32).reshape(1, 3, 1, 1))

    def execute(self, x):
        return (x - self.shift) / self.scale  # [B, 3, H, W]


class Features(nn.Module):
    """The five slices of VGG16: an image -> the last activations before each pooling."""

    def __init__(self):
        width = 3
        for i, (first, count, wider) in enumerate(SLICES, 1):
            setattr(self, f"slice{i}", Slice(first, count, width, wider))
            width = wider

    def execute(self, x):
        features = []
        for i in range(1, len(SLICES) + 1):
            x = getattr(self, f"slice{i}")(x if i == 1 else pool(x))  # [B, C_i, H_i, W_i]
            features.append(x)
        return features


class Slice(nn.Module):
    """3x3 convolutions with ReLU, named by their index in vgg16.features."""

    def __init__(self, first: int, count: int, channels_in: int, channels_out: int):
        self._names = [str(first + 2 * i) for i in range(count)]
        for i, name in enumerate(self._names):
            channels = channels_out if i else channels_in
            setattr(self, name, Conv3x3(channels, channels_out))

    def execute(self, x):
        for name in self._names:
            x = nn.relu(getattr(self, name)(x))  # [B, C_out, H, W]
        return x


class Head(nn.Module):
    """Weighted mean of a slice's squared differences, as `model.1`, a 1x1 convolution behind
    dropout.
    """

    def __init__(self, channels: int):
        self.model = nn.Sequential()
        self.model.add_module("1", nn.Conv2d(channels, 1, 1, bias=False))

    def execute(self, x):
        return (x * self.model[0].weight).sum(1).mean((1, 2))  # [B]


def unit(h):
    """Every position's feature vector of h [B, C, H, W] over its length; a zero vector stays zero,
    and so does its gradient.
    """
    length = jt.sqrt(jt.maximum((h * h).sum(1, keepdims=True), EPS * EPS))
    return h / (length + EPS)


def pool(x):
    """2x2 maximum; of equal values the first gets the gradient, as in PyTorch, where Jittor's max
    over an axis would give it to each.
    """
    batch, channels, height, width = (int(n) for n in x.shape)
    x = x[:, :, : height // 2 * 2, : width // 2 * 2].reshape(
        batch, channels, height // 2, 2, width // 2, 2
    )
    columns = jt.maximum(x[:, :, :, :, :, 1], x[:, :, :, :, :, 0])  # [B, C, h, 2, w]
    return jt.maximum(columns[:, :, :, 1], columns[:, :, :, 0])  # [B, C, h, w]


def load_lpips(*paths) -> Lpips:
    """The network with weights from one file, or from several that complete each other.

    Understood: an LPIPS state dict (taming-transformers', the lpips package's), a VQ-GAN checkpoint
    that holds one as loss.perceptual_loss, or the heads alone (vgg.pth of the lpips package)
    together with torchvision's vgg16. Raises CheckpointError, FileNotFoundError.
    """
    lpips = Lpips()
    arrays = {
        name: value.numpy()
        for name, value in lpips.state_dict().items()
        if name.startswith("scaling_layer.")
    }
    for path in paths:
        arrays.update(renamed(load(path, weights="model")))

    missing = [
        part
        for part, prefix in PARTS.items()
        if not any(name.startswith(prefix) for name in arrays)
    ]
    if missing:
        raise CheckpointError(
            f"{', '.join(map(str, paths))}: without {' and '.join(missing)}; LPIPS needs both: "
            "give vgg.pth of the lpips package and torchvision's vgg16 file, or one file with "
            "all of it"
        )
    load_into(lpips, arrays)
    return lpips


def renamed(arrays: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Those arrays of a file that belong to LPIPS, under this module's names."""
    slices = {
        first + 2 * i: number
        for number, (first, count, _) in enumerate(SLICES, 1)
        for i in range(count)
    }
    ours = {}
    for name, array in arrays.items():
        name = name.rpartition("perceptual_loss.")[2]

        # torchvision's vgg16 numbers its layers through.
        backbone = re.match(r"features\.(\d+)\.(weight|bias)$", name)
        if backbone and int(backbone.group(1)) in slices:
            index, kind = backbone.groups()
            name = f"net.slice{slices[int(index)]}.{index}.{kind}"
        if re.match(r"(net\.slice\d\.|lin\d\.|scaling_layer\.)", name):
            ours[name] = array
    return ours
