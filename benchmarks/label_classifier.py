"""A small pixel classifier that judges images of procedural landscapes: which of the 29 classes
is seen where.

A convolutional network of three scales (about 0.4 million parameters), trained in a few minutes on
drawings of jseg.landscapes.draw that no other training here uses, from a fixed seed. Training
images are varied in light and colour, blurred and made noisy, so that it judges by form as well
and not only by the drawings' exact colours and sharpness. Used by benchmarks/shipped_weights.py.
"""

from __future__ import annotations

import sys
import time
from typing import List, Sequence, Tuple

import numpy as np

from jseg.checkpoint import load_into, save
from jseg.images import resize_label
from jseg.landscapes import draw
from jseg.nn.convolution import upsample
from jseg.nn.layers import GroupNorm, one_hot, silu
from jseg.noise import generator
from jseg.runtime import jt, seed
from jseg.training.optimizer import AdamW, trainable
from jseg.training.sampling import positions

nn = jt.nn

# Drawings SEEDS, SEEDS + 1, ...: neither a scene nor a reference of a benchmark or a training.
SEEDS = 3 << 28
CLASSES = 29
BATCH, LEARNING_RATE, WEIGHT_DECAY = 12, 3e-3, 0.01


class Block(nn.Module):
    """3x3 convolution, group norm, SiLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1):
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)
        self.norm = GroupNorm(8, channels_out)

    def execute(self, x):
        return silu(self.norm(self.conv(x)))  # [B, O, H / stride, W / stride]


class Classifier(nn.Module):
    """Images [B, 3, H, W] in [-1, 1] -> logits [B, 29, H / 2, W / 2]; H and W multiples of 16."""

    def __init__(self, widths: Sequence[int] = (32, 64, 96, 96)):
        first, second, third, fourth = widths
        self.stem = nn.Sequential(Block(3, first, 2), Block(first, first))
        self.down = nn.ModuleList(
            [nn.Sequential(Block(a, b, 2), Block(b, b)) for a, b in zip(widths, widths[1:])]
        )
        self.side = nn.ModuleList([nn.Conv2d(channels, second, 1) for channels in widths])
        self.up = nn.ModuleList([Block(second, second) for _ in widths[1:]])
        self.head = nn.Conv2d(second, CLASSES, 1)

    def execute(self, x):
        scales = [self.stem(x)]  # [B, 32, H / 2, W / 2]
        for down in self.down:
            scales.append(down(scales[-1]))  # [B, 96, H / 16, W / 16] at last
        h = self.side[3](scales[3])  # [B, 64, H / 16, W / 16]
        for level in (2, 1, 0):
            beside = self.side[level](scales[level])
            h = self.up[level](upsample(h) + beside)  # [B, 64, H / 2, W / 2] at last
        return self.head(h)  # [B, 29, H / 2, W / 2]


def train(drawings: int, steps: int, width: int, height: int, learning_seed: int = 0) -> Classifier:
    """A classifier trained on `drawings` landscapes of that size; the learning rate falls to 0
    along a cosine.
    """
    started = time.monotonic()
    data = [draw.landscape(SEEDS + number, width, height) for number in range(drawings)]
    _say(f"classifier: {drawings} landscapes drawn in {time.monotonic() - started:.0f} s")
    seed(learning_seed)
    network = Classifier()
    network.train()
    optimizer = AdamW(trainable(network), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    started, mean = time.monotonic(), 0.0
    for step in range(steps):
        images, labels = _batch(data, step, learning_seed)
        loss = cross_entropy(network(jt.array(images)), labels)
        gradients = jt.grad(loss, list(optimizer.parameters.values()), retain_graph=False)
        jt.sync(gradients + [loss])
        falling, rising = 0.5 * (1 + np.cos(np.pi * step / steps)), min(1, (step + 1) / 20)
        optimizer.learning_rate = LEARNING_RATE * falling * rising
        optimizer.step(dict(zip(optimizer.parameters, gradients)))
        mean += (float(loss.item()) - mean) / min(step + 1, 20)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            _say(
                f"classifier: step {step + 1} of {steps}, loss {mean:.3f}, "
                f"{time.monotonic() - started:.0f} s"
            )
    network.eval()
    return network


def trained_or_loaded(path, drawings: int, steps: int, width: int, height: int) -> Classifier:
    """The classifier in the file `path`, or a newly trained one, which is saved there if a path is
    given.
    """
    import os

    if path and os.path.isfile(path):
        network = Classifier()
        load_into(network, path)
        network.eval()
        return network
    network = train(drawings, steps, width, height)
    if path:
        save(path, network.state_dict(), drawings=drawings, steps=steps, width=width, height=height)
    return network


def predict(network: Classifier, images: Sequence[np.ndarray], batch: int = 8) -> List[np.ndarray]:
    """The likeliest class of every pixel: uint8 [H, W, 3] each, of one size -> uint8 [H, W]
    each.
    """
    maps = []
    for start in range(0, len(images), batch):
        signed = np.stack([_signed(image) for image in images[start : start + batch]])
        with jt.no_grad():
            logits = network(jt.array(signed))
            size = signed.shape[2:]
            logits = nn.interpolate(logits, size=size, mode="bilinear", align_corners=False).numpy()
        maps += list(logits.argmax(axis=1).astype(np.uint8))
    return maps


def cross_entropy(logits, labels: np.ndarray):
    """Mean over pixels of -log softmax(logits [B, C, h, w]) at labels [B, h, w], as a Var."""
    shifted = logits - logits.max(1, keepdims=True)
    chosen = (shifted * one_hot(labels, logits.shape[1])).sum(1)
    return (jt.log(jt.exp(shifted).sum(1)) - chosen).mean()


def varied(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image in another light: contrast, brightness, tint, blur and noise; uint8 [H, W, 3]."""
    import cv2

    x = image.astype(np.float32)
    x = (x - 128) * rng.uniform(0.75, 1.25) + 128 + rng.uniform(-25, 25) + rng.uniform(-12, 12, 3)
    sigma = rng.uniform(-0.8, 1.6)  # a third of the images stays sharp
    if sigma > 0.2:
        x = cv2.GaussianBlur(x, (0, 0), sigma)
    x = x + rng.standard_normal(x.shape) * max(0.0, rng.uniform(-6, 12))
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def _batch(data, step: int, learning_seed: int) -> Tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for place, index in enumerate(positions(len(data), BATCH, step, learning_seed)):
        rng = generator(learning_seed, "classifier", step, place)
        image, label = data[index]
        if rng.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        images.append(_signed(varied(image, rng)))
        labels.append(
            resize_label(np.ascontiguousarray(label), label.shape[1] // 2, label.shape[0] // 2)
        )
    return np.stack(images), np.stack(labels)


def _signed(image: np.ndarray) -> np.ndarray:
    from jseg.images import to_signed

    return to_signed(np.ascontiguousarray(image))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
