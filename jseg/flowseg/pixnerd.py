"""PixNerd: a transformer over patches whose tokens generate a small neural field per patch, which
computes the pixels.

Mirrors PixNerDiT of the official code (src/models/transformer/pixnerd_c2i.py; PixNerd, Wang et al.
2025, arXiv 2507.23268), whose state-dict names and numbers it has, so that its class-to-image
weights load. For FlowSeg the images that it makes are class codes.

- Source "image": the flow starts from the image, and the network sees x_t alone: nothing is added
  to PixNerd.
- Sources with noise: the network also sees the image, at the tokens (`c_embedder`) and at the
  pixels (`xc_embedder`), each time through a linear layer without bias, whose output is added: what
  a network on six channels would compute. Both layers start at zero, so PixNerd's weights give
  PixNerd's function. `condition(image)` embeds the image once for all steps of a flow.

In training, `network.recompute = True` keeps the inputs of blocks only. Without gradients the
neural field works on runs of patches.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import numpy as np

from jseg.checkpoint import load, load_into
from jseg.configs import PixNerdConfig
from jseg.flowseg.blocks import (
    LabelEmbedding,
    PatchEmbedding,
    TimeEmbedding,
    TransformerBlock,
    turn_tables,
)
from jseg.flowseg.neural_field import (
    FieldBlock,
    FinalLayer,
    NeuralField,
    PixelEmbedding,
    from_pixel_rows,
    in_runs,
    pixel_rows,
)
from jseg.flowseg.state_dict import IMAGE_LAYERS, another_size
from jseg.nn.layers import Linear, as_var, nn, silu, zero
from jseg.nn.recompute import recompute
from jseg.runtime import jt

COLOURS = 3


class Condition(NamedTuple):
    """An image as the network sees it beside x_t."""

    tokens: object  # what is added to the patches' tokens [B, L, D]
    pixels: object  # [B L, p^2, 3]


class PixNerd(nn.Module):
    """PixNerd(NETWORKS["small"])(x_t [B, 3, H, W], t [B], image=None, labels=None) -> velocity
    [B, 3, H, W], at t = 0 (source) to 1 (data).

    H and W: multiples of the patch, not only the training's. image: the image in [-1, 1], for
    networks that see it, or its `condition`; labels: class ids [B] (an array is checked, a Var is
    not), None the null class. recompute: an attribute; True trains with the activation memory of
    blocks' inputs. Raises ValueError for other shapes, for a missing image, and for an image
    given to a network that starts from it: there (x_t - image) / t gives the velocity away, and
    nothing would be learnt.
    """

    # `checkpoint.load_into` asks it about a file that does not fit.
    explain_mismatch = staticmethod(another_size)

    def __init__(self, config: PixNerdConfig):
        self._config, self.recompute, self._tables = config, False, {}
        width, channels = config.hidden_size, config.pixel_channels
        values = COLOURS * config.patch**2

        # embeddings
        self.x_embedder = PixelEmbedding(channels, config.frequencies, config.patch)
        self.s_embedder = PatchEmbedding(values, width)
        self.t_embedder = TimeEmbedding(width)
        self.y_embedder = LabelEmbedding(config.classes, width)
        if config.sees_image:
            self.c_embedder = PatchEmbedding(values, width, bias=False)
            self.xc_embedder = Linear(COLOURS, channels, bias=False)

        # transformer, then neural field, in one list as in the official code
        transformer = [TransformerBlock(width, config.heads) for _ in range(config.depth)]
        fields = [
            FieldBlock(width, channels, config.pixel_ratio) for _ in range(config.pixel_blocks)
        ]
        self.blocks = nn.ModuleList(transformer + fields)
        self.final_layer = FinalLayer(channels)

        # In a tuple, where Jittor finds no child: these layers have their names already.
        image_embedder = self.xc_embedder if config.sees_image else None
        self._field = (
            NeuralField(config, self.x_embedder, fields, self.final_layer, image_embedder),
        )
        self._initialise()

    @property
    def config(self) -> PixNerdConfig:
        return self._config

    def _initialise(self) -> None:
        """As the official code: what is not named here keeps the linear layers' default."""
        jt.init.xavier_uniform_(self.s_embedder.proj.weight)
        jt.init.zero_(self.s_embedder.proj.bias)
        mlp = self.t_embedder.mlp
        for weight in (self.y_embedder.embedding_table.weight, mlp[0].weight, mlp[2].weight):
            jt.init.gauss_(weight, 0, 0.02)
        zero(self.final_layer.linear)
        if self.config.sees_image:
            zero(self.c_embedder)
            zero(self.xc_embedder)

    def execute(self, x_t, t, image=None, labels=None, tap: Optional[int] = None):
        """As of the class; with tap, (velocity, tokens [B, L, D]), the tokens after the transformer
        block of that number, counted from 1, for `repa`.
        """
        if tap is not None and not 1 <= tap <= self.config.depth:
            raise ValueError(
                f"PixNerd: tap {tap}; this network has transformer blocks 1 to {self.config.depth}"
            )
        patch, x = self.config.patch, _checked("x_t", x_t, self.config.patch)
        batch, _, height, width = x.shape
        condition = self._condition(image, x)

        # time and class
        time = self.t_embedder(_times(t, batch))  # [B, D]
        c = silu(time + self.y_embedder(labels, batch))  # [B, D]

        # patches to tokens
        s = self.s_embedder(patch_rows(x, patch))  # [B, L, D]
        if condition is not None:
            s = s + condition.tokens

        # transformer
        tables, tapped = self._turns(height // patch, width // patch), None
        for number, block in enumerate(list(self.blocks)[: self.config.depth], 1):
            inputs = (s, c, *tables)
            s = recompute(block, *inputs) if self.recompute else block(*inputs)  # [B, L, D]
            if number == tap:
                tapped = s

        # neural field
        tokens = silu(time.reshape(batch, 1, -1) + s).reshape(-1, s.shape[2])  # [B L, D]
        inputs = [tokens, pixel_rows(x, patch)]
        if condition is not None:
            inputs.append(condition.pixels)
        field = self._field[0]
        chunked = self.recompute or jt.flags.no_grad  # else gradients need all values anyway
        pixels = in_runs(field, *inputs) if chunked else field(*inputs)  # [B L, p^2, 3]
        velocity = from_pixel_rows(pixels, height, width, patch).float32()  # [B, 3, H, W]
        return velocity if tap is None else (velocity, tapped)

    def condition(self, image) -> Condition:
        """The image [B, 3, H, W] in [-1, 1] as the network sees it; reuse it for all steps of a
        flow.

        Raises ValueError for another shape, and for a network that sees no image.
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
        x, patch = _checked("image", image, self.config.patch), self.config.patch
        return Condition(self.c_embedder(patch_rows(x, patch)), pixel_rows(x, patch))

    def _condition(self, image, x_t) -> Optional[Condition]:
        """The image's `condition`, checked against x_t; None for a network that sees x_t alone."""
        if not self.config.sees_image and image is None:
            return None
        if image is None:
            raise ValueError(
                f"PixNerd: no image given; this network, of source {self.config.source!r}, sees "
                "the image beside x_t"
            )
        condition = image if isinstance(image, Condition) else self.condition(image)
        images, patches = x_t.shape[0], x_t.shape[2] * x_t.shape[3] // self.config.patch**2
        if list(condition.tokens.shape[:2]) != [images, patches]:
            raise ValueError(
                f"PixNerd: the image given is a batch of {condition.tokens.shape[0]} images of "
                f"{condition.tokens.shape[1]} patches; x_t is one of {images} of {patches}"
            )
        return condition

    def _turns(self, rows: int, columns: int):
        """The `turn_tables` of a grid of patches, made at its first use."""
        if (rows, columns) not in self._tables:
            head = self.config.hidden_size // self.config.heads
            self._tables[rows, columns] = [
                jt.array(table).stop_grad() for table in turn_tables(rows, columns, head)
            ]
        return self._tables[rows, columns]


def load_pretrained(network: PixNerd, path) -> None:
    """Start from a file of PixNerd's or of ours, strictly; the layers for the image stay at zero if
    the file has none.

    Takes the moving average where there is one. Raises FileNotFoundError or CheckpointError.
    """
    own = network.state_dict()
    image_layers = {name: own[name].numpy() for name in IMAGE_LAYERS if name in own}
    load_into(network, {**image_layers, **load(path)})


def patch_rows(x, patch: int):
    """x [B, 3, H, W] -> [B, L, 3 p^2]: patches row by row; in a patch, channel by channel, then row
    by row.
    """
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * patch**2)


def _times(t, batch: int):
    times = (t if isinstance(t, jt.Var) else jt.array(np.asarray(t, np.float32))).float32()
    if list(times.shape) != [batch]:
        raise ValueError(
            f"PixNerd: got times of shape {list(times.shape)}; expected [{batch}], one for each "
            "image"
        )
    return times


def _checked(name: str, images, patch: int):
    x = as_var(images)
    planes = x.ndim == 4 and x.shape[1] == COLOURS
    if not planes or any(length % patch or not length for length in x.shape[2:]):
        raise ValueError(
            f"PixNerd: got {name} of shape {list(x.shape)}; expected [B, 3, H, W] with H and W "
            f"multiples of {patch}"
        )
    return x
