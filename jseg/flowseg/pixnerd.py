"""PixNerd: a transformer over patches whose tokens generate a small neural field per patch, which
computes the pixels.

Mirrors PixNerDiT of the official code (src/models/transformer/pixnerd_c2i.py; PixNerd, Wang et al.
2025, arXiv 2507.23268), whose state-dict names and numbers it has, so that its class-to-image
weights load. For FlowSeg the images that it makes are class codes.

- Source "image": the flow starts from the image, and the network sees x_t alone: nothing is added
  to PixNerd.
- Sources with noise: the image is fed in beside x_t, at the tokens (`c_embedder`) and at the
  pixels (`xc_embedder`), each a linear layer without bias whose output is added: what a network on
  six channels would compute. Both start at zero, so that PixNerd's weights give PixNerd's function.
  `condition(image)` computes the tokens' share once for all steps of a flow.

In training, `network.recompute = True` keeps the inputs of blocks only. Without gradients the
neural field works on runs of patches.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional

import numpy as np

from jseg.checkpoint import load, load_into
from jseg.configs import PixNerdConfig
from jseg.flowseg.blocks import (
    FieldBlock,
    FinalLayer,
    PixelEmbedding,
    Split,
    TimeEmbedding,
    TransformerBlock,
    turn_tables,
)
from jseg.flowseg.state_dict import IMAGE_LAYERS, another_size
from jseg.nn.layers import as_var, nn, silu, zero
from jseg.nn.recompute import recompute
from jseg.runtime import jt

FIELD_CHUNK_BYTES = 256 << 20  # of the neural field's intermediate values at a time
COLOURS = 3


class Condition(NamedTuple):
    """An image as the network sees it beside x_t."""

    tokens: object  # its share of the patches' tokens [B, L, D]
    pixels: object  # [B L, patch^2, 3]


class PixNerd(nn.Module):
    """PixNerd(NETWORKS["small"])(x_t [B,3,H,W], t [B], image=None, labels=None) -> velocity
    [B,3,H,W], at t = 0 (source) to 1 (data).

    H and W: multiples of the patch, not only the training's. image: the image in [-1, 1], for
    networks that see it, or its `condition`; labels: class ids [B] (an array is checked, a Var is
    not), None the null class. recompute: an attribute; True trains with the activation memory of
    blocks' inputs. Raises ValueError for other shapes, for a missing image, and for an image
    given to a network that starts from it: there (x_t - image) / t gives the velocity away, and
    nothing would be learnt.
    """

    explain_mismatch = staticmethod(
        another_size
    )  # asked by `checkpoint.load_into` where a file does not fit

    def __init__(self, config: PixNerdConfig):
        self._config, self.recompute, self._tables = config, False, {}
        width, channels = config.hidden_size, config.pixel_channels
        self.x_embedder = PixelEmbedding(channels, config.frequencies, config.patch)
        self.s_embedder = PatchEmbedding(COLOURS * config.patch**2, width)
        self.t_embedder = TimeEmbedding(width)
        self.y_embedder = LabelEmbedding(config.classes + 1, width)
        if config.sees_image:
            self.c_embedder = PatchEmbedding(COLOURS * config.patch**2, width, bias=False)
            self.xc_embedder = nn.Linear(COLOURS, channels, bias=False)
        self.blocks = nn.ModuleList(
            [TransformerBlock(width, config.heads) for _ in range(config.depth)]
            + [FieldBlock(width, channels, config.pixel_ratio) for _ in range(config.pixel_blocks)]
        )
        self.final_layer = FinalLayer(channels)
        # In a tuple, where it is no child: the field's parameters have their names already.
        self._field = (Field(self, list(self.blocks)[config.depth :]),)
        self._initialise()

    @property
    def config(self) -> PixNerdConfig:
        return self._config

    def _initialise(self) -> None:
        """As the official code: what is not named here keeps the linear layers' default."""
        jt.init.xavier_uniform_(self.s_embedder.proj.weight)
        jt.init.zero_(self.s_embedder.proj.bias)
        for weight in (
            self.y_embedder.embedding_table.weight,
            self.t_embedder.mlp[0].weight,
            self.t_embedder.mlp[2].weight,
        ):
            jt.init.gauss_(weight, 0, 0.02)
        zero(self.final_layer.linear)
        if self.config.sees_image:
            zero(self.c_embedder)
            zero(self.xc_embedder)

    def condition(self, image) -> Condition:
        """The image [B, 3, H, W] in [-1, 1] as the network sees it; reuse it for all steps of a
        flow.
        """
        if not self.config.sees_image:
            why = (
                "its flow starts from the image, and with the image given too, (x_t - image) "
                "/ t would be the velocity and nothing would be learnt"
                if self.config.source == "image"
                else "it was made without image_input"
            )
            raise ValueError(
                f"PixNerd: this network takes no image: {why}. Leave image out, or take another "
                "network: source 'noise' or 'image+noise'"
            )
        image = self._checked("image", image)
        return Condition(
            self.c_embedder(patch_rows(image, self.config.patch)),
            pixel_rows(image, self.config.patch),
        )

    def execute(self, x_t, t, image=None, labels=None, tap: Optional[int] = None):
        """As of the class; tap: give (velocity, tokens [B, L, D] after that transformer block,
        counted from 1), for `repa`.
        """
        patch, x_t = self.config.patch, self._checked("x_t", x_t)
        batch, _, height, width = x_t.shape
        fed = self._fed(image, x_t)
        time = self.t_embedder(self._times(t, batch))  # [B, D]
        condition = silu(time + self._classes(labels, batch))  # [B, D]
        s = self.s_embedder(patch_rows(x_t, patch))  # [B, L, D]
        if fed is not None:
            s = s + fed.tokens
        tables, tapped = self._turns(height // patch, width // patch), None
        for number, block in enumerate(list(self.blocks)[: self.config.depth], 1):
            s = (
                recompute(block, s, condition, *tables)
                if self.recompute
                else block(s, condition, *tables)
            )
            tapped = s if number == tap else tapped
        if tap is not None and tapped is None:
            raise ValueError(
                f"PixNerd: tap {tap}; this network has transformer blocks 1 to {self.config.depth}"
            )
        s = silu(time.reshape(batch, 1, -1) + s).reshape(-1, s.shape[2])  # [B L, D]
        pixels = self._pixels(
            [s, pixel_rows(x_t, patch)] + ([] if fed is None else [fed.pixels])
        )  # [B L, patch^2, 3]
        velocity = from_pixel_rows(pixels, height, width, patch)  # [B, 3, H, W]
        return velocity if tap is None else (velocity, tapped)

    def _pixels(self, inputs: List):
        """The neural field on all patches: at once where gradients need all its values anyway, else
        in runs of patches.
        """
        field, patches = self._field[0], inputs[0].shape[0]
        if not (self.recompute or jt.flags.no_grad):
            return field(*inputs)
        run = max(1, FIELD_CHUNK_BYTES // (4 * self._floats()))
        sizes = [min(run, patches - start) for start in range(0, patches, run)]
        if len(sizes) == 1:
            return recompute(field, *inputs)
        parts = []
        for chunk in zip(*(Split(sizes)(x) for x in inputs)):
            parts.append(recompute(field, *chunk))
            if jt.flags.no_grad:
                parts[-1].sync()  # else the lazy graph may hold every run's values at once
        return jt.concat(parts, dim=0)

    def _floats(self) -> int:
        """Values that the neural field holds for a patch: generated weights twice, embeddings,
        hidden layers.
        """
        channels, hidden = (
            self.config.pixel_channels,
            self.config.pixel_channels * self.config.pixel_ratio,
        )
        return 4 * channels * hidden + self.config.patch**2 * (3 * channels + 2 * hidden)

    def _turns(self, rows: int, columns: int):
        """The tables of a grid of patches, kept for the next call."""
        if (rows, columns) not in self._tables:
            head = self.config.hidden_size // self.config.heads
            self._tables[rows, columns] = [
                jt.array(table).stop_grad() for table in turn_tables(rows, columns, head)
            ]
        return self._tables[rows, columns]

    def _classes(self, labels, batch: int):
        """The embeddings of class ids [B], None being the null class: [B, D] or [1, D]."""
        table = self.y_embedder.embedding_table.weight
        if labels is None:
            return table[self.config.classes :]
        if not isinstance(labels, jt.Var):
            labels = np.asarray(labels)
            if (
                labels.shape != (batch,)
                or labels.dtype.kind not in "iu"
                or labels.min() < 0
                or labels.max() > self.config.classes
            ):
                raise ValueError(
                    f"PixNerd: got labels {labels.tolist()}; expected {batch} class ids, 0 to "
                    f"{self.config.classes}"
                )
            labels = jt.array(labels.astype(np.int32))
        return table[labels]

    def _times(self, t, batch: int):
        t = (t if isinstance(t, jt.Var) else jt.array(np.asarray(t, np.float32))).float32()
        if list(t.shape) != [batch]:
            raise ValueError(
                f"PixNerd: got times of shape {list(t.shape)}; expected [{batch}], one for each "
                "image"
            )
        return t

    def _fed(self, image, x_t) -> Optional[Condition]:
        if not self.config.sees_image and image is None:
            return None
        if image is None:
            raise ValueError(
                f"PixNerd: no image given; this network, of source {self.config.source!r}, sees "
                "the image beside x_t"
            )
        fed = image if isinstance(image, Condition) else self.condition(image)
        expected = [x_t.shape[0], x_t.shape[2] * x_t.shape[3] // self.config.patch**2]
        if list(fed.tokens.shape[:2]) != expected:
            raise ValueError(
                f"PixNerd: an image of {fed.tokens.shape[0]} images and {fed.tokens.shape[1]} "
                f"patches each; x_t has {expected[0]} and {expected[1]}"
            )
        return fed

    def _checked(self, name: str, x):
        x, patch = as_var(x), self.config.patch
        if (
            x.ndim != 4
            or x.shape[1] != COLOURS
            or x.shape[2] % patch
            or x.shape[3] % patch
            or not x.shape[2] * x.shape[3]
        ):
            raise ValueError(
                f"PixNerd: got {name} of shape {list(x.shape)}; expected [B, 3, H, W] with H and "
                f"W multiples of {patch}"
            )
        return x


def load_pretrained(network: PixNerd, path, weights: str = "ema") -> None:
    """Start from a file of PixNerd's or of ours, strictly; the layers for the image, if the file
    has none, stay as they are: zero.

    weights: "ema" for the moving average where there is one, or "model". Raises FileNotFoundError
    or CheckpointError.
    """
    state, own = load(path, weights), network.state_dict()
    load_into(
        network, {**{name: own[name].numpy() for name in IMAGE_LAYERS if name in own}, **state}
    )


class PatchEmbedding(nn.Module):
    """A linear layer on the values of a patch."""

    def __init__(self, values: int, channels: int, bias: bool = True):
        self.proj = nn.Linear(values, channels, bias=bias)

    def execute(self, rows):
        return self.proj(rows)  # [B, L, D]


class LabelEmbedding(nn.Module):
    """A vector per class, and one for none."""

    def __init__(self, rows: int, channels: int):
        self.embedding_table = nn.Embedding(rows, channels)


class Field(nn.Module):
    """The neural field of patches: tokens s [n, D] and x_t's pixels [n, p^2, 3] (and the image's)
    -> [n, p^2, 3].
    """

    def __init__(self, network: PixNerd, blocks: List[FieldBlock]):
        self.embedder, self.final_layer = network.x_embedder, network.final_layer
        if network.config.sees_image:
            self.image = network.xc_embedder
        self.blocks = nn.ModuleList(blocks)

    def execute(self, s, pixels, image=None):
        h = self.embedder(pixels)  # [n, p^2, X]
        if image is not None:
            h = h + self.image(image)
        for block in self.blocks:
            h = block(h, s)  # [n, p^2, X]
        return self.final_layer(h)  # [n, p^2, 3]


def patch_rows(x, patch: int):
    """x [B, 3, H, W] -> [B, L, 3 patch^2]: patches row by row, within one channel by channel, then
    row by row.
    """
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * patch**2)


def pixel_rows(x, patch: int):
    """x [B, 3, H, W] -> [B L, patch^2, 3]."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, patch**2, channels)


def from_pixel_rows(pixels, height: int, width: int, patch: int):
    """The inverse of `pixel_rows`: [B L, patch^2, 3] -> [B, 3, height, width]."""
    pixels = pixels.reshape(-1, height // patch, width // patch, patch, patch, pixels.shape[2])
    return pixels.permute(0, 5, 1, 3, 2, 4).reshape(pixels.shape[0], pixels.shape[5], height, width)
