"""DINOv2 ViT-B/14: features of images that guide a training (Oquab et al. 2023), with the user's
weights.

Mirrors DinoVisionTransformer of the official code (models/vision_transformer.py, layers/), with its
state-dict names, so the public file dinov2_vitb14_pretrain.pth fits, and so does timm's
vit_base_patch14_dinov2, which lacks the mask_token; all weights are constants. Left out: registers,
masks, stochastic depth and nested batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jseg.checkpoint import CheckpointError, load, load_into
from jseg.nn.layers import as_var, attention, nn, standardize
from jseg.runtime import jt

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPS = 1e-6
# The official code asks for (size + 0.1) / grid times the table's size, and its interpolation uses
# that factor, not the sizes' ratio.
OFFSET = 0.1
WRAPPER = "backbone."  # of training programs that put a head beside the network
# The published networks, by width and number of blocks.
PUBLISHED = {
    (384, 12): "ViT-S/14",
    (768, 12): "ViT-B/14",
    (1024, 24): "ViT-L/14",
    (1536, 40): "ViT-g/14",
}


@dataclass(frozen=True)
class Dinov2Config:
    """Sizes; the defaults are ViT-B/14, trained at 518x518, hence a 37x37 table of positions."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 14
    grid: int = 37
    ratio: int = 4


VIT_B14 = Dinov2Config()


class Dinov2(nn.Module):
    """dinov2(images [B, 3, H, W] in [-1, 1]) -> [B, H/14 * W/14, 768], the last block's patch
    tokens, normalised, row by row.

    No gradient passes. Raises ValueError for H or W that is no multiple of the patch.
    """

    def __init__(self, config: Dinov2Config = VIT_B14):
        self.cls_token = jt.zeros((1, 1, config.width))
        self.pos_embed = jt.zeros((1, 1 + config.grid**2, config.width))
        self.mask_token = jt.zeros((1, config.width))  # in the file, and of no use here
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.Sequential(*[Block(config) for _ in range(config.depth)])
        self.norm = LayerNorm(config.width)
        self.config = config
        for parameter in self.parameters():
            parameter.stop_grad()
        self._mean, self._std = (
            jt.array(np.array(v, np.float32).reshape(1, 3, 1, 1)).stop_grad() for v in (MEAN, STD)
        )

    def execute(self, images):
        x, patch = as_var(images), self.config.patch
        planes = x.ndim == 4 and x.shape[1] == 3
        if not planes or any(n % patch or not n for n in x.shape[2:]):
            raise ValueError(
                f"DINOv2: images of shape {list(x.shape)}; expected [B, 3, H, W] with H and W "
                f"multiples of {patch}"
            )
        rows, columns = x.shape[2] // patch, x.shape[3] // patch
        with jt.no_grad():
            # patches and the class token, with their places
            x = self.patch_embed(((x + 1) / 2 - self._mean) / self._std)  # [B, L, D]
            cls_token = self.cls_token.expand(x.shape[0], 1, x.shape[2])
            x = jt.concat([cls_token, x], dim=1) + self._placed(rows, columns)  # [B, 1 + L, D]

            # transformer, without the class token in the end
            for block in self.blocks:
                x = block(x)
                x.sync()  # else the lazy graph may hold every block's activations at once
            return self.norm(x)[:, 1:]  # [B, L, D]

    def _placed(self, rows: int, columns: int):
        """The positions' embeddings [1, 1 + rows * columns, D] of a grid, interpolated from the
        table where it is not the table's.
        """
        grid, width = self.config.grid, self.config.width
        if (rows, columns) == (grid, grid):
            return self.pos_embed
        down, across = (_matrix(grid, n, (n + OFFSET) / grid) for n in (rows, columns))
        places = nn.matmul(down, self.pos_embed[:, 1:].reshape(grid, grid * width))
        places = places.reshape(rows, grid, width).permute(1, 0, 2).reshape(grid, rows * width)
        places = nn.matmul(across, places).reshape(columns, rows, width).permute(1, 0, 2)
        places = places.reshape(1, rows * columns, width)  # [1, L, D]
        return jt.concat([self.pos_embed[:, :1], places], dim=1)


class PatchEmbed(nn.Module):
    """Patches as tokens, one linear map of each."""

    def __init__(self, config: Dinov2Config):
        self.proj = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self._patch = config.patch

    def execute(self, x):
        batch, _, height, width = x.shape
        patch, rows, columns = self._patch, height // self._patch, width // self._patch
        x = x.reshape(batch, 3, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
        x = x.reshape(batch * rows * columns, -1)  # [B L, 3 p^2]
        weight = self.proj.weight.reshape(self.proj.weight.shape[0], -1)  # [D, 3 p^2]
        x = nn.matmul_transpose(x, weight) + self.proj.bias
        return x.reshape(batch, rows * columns, -1)  # [B, L, D]


class Block(nn.Module):
    """Attention and a two-layer network, each behind a norm, scaled per channel and added."""

    def __init__(self, config: Dinov2Config):
        self.norm1, self.norm2 = LayerNorm(config.width), LayerNorm(config.width)
        self.attn = Attention(config)
        self.ls1, self.ls2 = LayerScale(config.width), LayerScale(config.width)
        self.mlp = Mlp(config)

    def execute(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))  # [B, L, D]


class Attention(nn.Module):
    """Self-attention of several heads; `qkv` holds queries, keys and values, each of all heads."""

    def __init__(self, config: Dinov2Config):
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        self._heads = config.heads

    def execute(self, x):
        batch, length, width = x.shape
        head = width // self._heads
        qkv = self.qkv(x).reshape(batch, length, 3, self._heads, head)
        qkv = qkv.permute(2, 0, 3, 1, 4)  # [3, B, heads, L, D/heads]
        q, k, v = (qkv[i].reshape(batch * self._heads, length, head) for i in range(3))
        y = attention(q, k, v, head**-0.5).reshape(batch, self._heads, length, head)
        return self.proj(y.permute(0, 2, 1, 3).reshape(batch, length, width))  # [B, L, D]


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, config: Dinov2Config):
        self.fc1 = nn.Linear(config.width, config.ratio * config.width)
        self.fc2 = nn.Linear(config.ratio * config.width, config.width)

    def execute(self, x):
        return self.fc2(nn.gelu(self.fc1(x)))  # [B, L, D]


class LayerScale(nn.Module):
    """x times one number per channel."""

    def __init__(self, width: int):
        self.gamma = jt.ones(width)

    def execute(self, x):
        return x * self.gamma  # [B, L, D]


class LayerNorm(nn.Module):
    """Normalisation over the channels, in two passes."""

    def __init__(self, width: int):
        self.weight, self.bias = jt.ones(width), jt.zeros(width)

    def execute(self, x):
        return standardize(x, EPS) * self.weight + self.bias  # [B, L, D]


def resize(images, height: int, width: int):
    """images [B, C, H, W] -> [B, C, height, width], as PyTorch's bicubic interpolation to that size
    does; by matrix products.
    """
    batch, channels, rows, columns = images.shape
    if (rows, columns) == (height, width):
        return images
    planes = batch * channels
    x = images.reshape(planes * rows, columns)
    x = nn.matmul_transpose(x, _matrix(columns, width)).reshape(planes, rows, width)
    x = x.permute(0, 2, 1).reshape(planes * width, rows)
    x = nn.matmul_transpose(x, _matrix(rows, height)).reshape(planes, width, height)
    return x.permute(0, 2, 1).reshape(batch, channels, height, width)


def bicubic(size: int, target: int, factor: float = 0.0) -> np.ndarray:
    """The matrix float64 [target, size] that resizes one axis as PyTorch's bicubic interpolation
    does (a = -0.75, no antialiasing).

    factor: the scale by which places are computed, target / size if 0. Taps beyond an end take that
    end's value.
    """
    centres = (np.arange(target) + 0.5) / (factor or target / size) - 0.5
    first = np.floor(centres).astype(int)
    matrix = np.zeros((target, size))
    for tap in (-1, 0, 1, 2):
        d = np.abs(centres - first - tap)
        near, far = (1.25 * d - 2.25) * d * d + 1, -0.75 * (((d - 5) * d + 8) * d - 4)
        place = np.clip(first + tap, 0, size - 1)
        np.add.at(matrix, (np.arange(target), place), np.where(d <= 1, near, far))
    return matrix


def _matrix(size: int, target: int, factor: float = 0.0):
    return jt.array(bicubic(size, target, factor).astype(np.float32)).stop_grad()


def load_dinov2(path) -> Dinov2:
    """ViT-B/14 with the weights of the public dinov2_vitb14_pretrain.pth, in any format that
    `jseg.checkpoint` reads.

    The same network as timm writes it (vit_base_patch14_dinov2: no mask_token) is read too, and
    either behind the prefix "backbone.". Raises FileNotFoundError, and CheckpointError in one line
    for other files, for DINOv2 weights of another size and for those with registers.
    """
    arrays = load(path, weights="model")
    if all(name.startswith(WRAPPER) for name in arrays):
        arrays = {name[len(WRAPPER) :]: array for name, array in arrays.items()}
    expected = f"expected {PUBLISHED[768, 12]}, the public dinov2_vitb14_pretrain.pth"
    if "pos_embed" not in arrays or "patch_embed.proj.weight" not in arrays:
        raise CheckpointError(
            f"{path} holds no DINOv2 network (no pos_embed, patch_embed.proj.weight); {expected}"
        )
    width = arrays["pos_embed"].shape[-1]
    depth = len({name.split(".")[1] for name in arrays if name.startswith("blocks.")})
    registers = " with registers" if {"register_tokens", "reg_token"} & set(arrays) else ""
    if (width, depth) != (VIT_B14.width, VIT_B14.depth) or registers:
        raise CheckpointError(
            f"{path} holds DINOv2 {PUBLISHED.get((width, depth), 'weights')}{registers}, width "
            f"{width} in {depth} blocks; {expected}, width {VIT_B14.width} in {VIT_B14.depth} "
            "blocks without registers"
        )

    # timm drops the mask_token, which only a training with masked patches uses.
    dinov2 = Dinov2(VIT_B14)
    arrays.setdefault("mask_token", np.zeros((1, width), np.float32))
    try:
        load_into(dinov2, arrays)
    except CheckpointError as error:
        raise CheckpointError.at(path, error) from None
    return dinov2
