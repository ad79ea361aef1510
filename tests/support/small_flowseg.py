"""Small scenes with label maps and networks of known behaviour, for the tests of FlowSeg."""

import dataclasses

import numpy as np

from jseg.checkpoint import save
from jseg.data.classes import CLASS_SETS
from jseg.flowseg.encoding import class_codes
from jseg.flowseg.predict import stored_classes
from jseg.flowseg.presets import NETWORKS
from jseg.images import save_image
from jseg.runtime import jt

CLASSES = 4
TINY = dataclasses.replace(NETWORKS["tiny"], labels=CLASSES)  # windows of 48x32


def scene(seed, width=48, height=32, classes=CLASSES):
    """(image uint8 [H, W, 3], label uint8 [H, W]): rectangles whose red value tells their class,
    the other colours being noise.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.arange(height)[:, None] * 4 // height, np.arange(width) * 6 // width
    label = rng.integers(0, classes, (4, 6), dtype=np.uint8)[rows, columns]
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[..., 0] = ((label.astype(int) * 2 + 1) * 255 / (2 * classes)).astype(np.uint8)
    return image, label


class Knowing:
    """A network that flows straight to the codes of `classify(image [b, 3, h, w] in [-1, 1],
    start [b, 3, h, w]) -> labels [b, h, w]`.

    The default takes the class that the red value of `scene` tells. The image is the start of the
    flow for the source "image", else the image that the network sees. shapes: those of its calls.
    """

    def __init__(self, config=TINY, classify=None):
        self.config, self.classify = config, classify or self.red
        self.shapes, self.training = [], True
        self.codes = class_codes(config.labels, config.codes).astype(np.float32)

    def red(self, images, start):
        classes = (images[:, 0] + 1) / 2 * self.config.labels
        return np.clip(classes, 0, self.config.labels - 1).astype(int)

    def eval(self):
        self.training = False

    def train(self):
        self.training = True

    def condition(self, image):
        return np.asarray(image)

    def __call__(self, x, t, image=None):
        x = x.numpy()
        self.shapes.append(x.shape)
        if float(t.numpy()[0]) == 0:
            assert (image is not None) == self.config.sees_image
            labels = self.classify(x if image is None else image, x)
            self.velocity = self.codes[labels].transpose(0, 3, 1, 2) - x
        return jt.array(self.velocity)


def random_network(config=TINY, seed=0):
    """A PixNerd whose last layer is not zero, as it is at the start."""
    from jseg.flowseg.pixnerd import PixNerd

    network, rng = PixNerd(config), np.random.default_rng(seed)
    for name, parameter in network.state_dict().items():
        scale = 0.5 if name.startswith("final_layer") else 1 / np.sqrt(parameter.shape[-1])
        if name.endswith("norm.weight") or ".norm" in name and name.endswith("weight"):
            values = np.ones(parameter.shape)
        else:
            values = scale * rng.standard_normal(parameter.shape)
        parameter.assign(jt.array(values.astype(np.float32)))
    return network


def write_scenes(folder, seeds, width=48, height=32, ids=None, names=("images", "labels")):
    """Scenes as folder/images/s3.jpg (or as named) and folder/labels/s3.png, stored as
    ids[class].
    """
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        image, label = scene(seed, width, height)
        stored = label if ids is None else np.array(ids, np.uint8)[label]
        save_image(folder / names[0] / f"s{seed}.jpg", image)
        save_image(folder / names[1] / f"s{seed}.png", stored)
    return folder


def saved_network(path, classes):
    """The path of a tiny network for a class set, as its training would save it."""
    config = dataclasses.replace(TINY, labels=len(CLASS_SETS[classes]))
    arrays = random_network(config).state_dict()
    save(path, arrays, config, settings={"classes": stored_classes(CLASS_SETS[classes])})
    return path
