"""Feature sets of image files: Inception's for FID, our autoencoder's for the stand-in, each in a
`FeatureStore`.

The stand-in is always the autoencoder that ships, on images of 128x96: mean and deviation over all
positions of its encoder's activations after each level and after its middle, 704 numbers. It was
trained on drawn landscapes; its distances rank sets of results against the same real images, and
cannot be compared with any FID.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence

import numpy as np

from jseg.checkpoint import describe, load_into
from jseg.evaluation.inception import load_inception, prepared
from jseg.evaluation.store import FeatureStore
from jseg.files import sha256
from jseg.images import read_image, resize_image, to_signed
from jseg.ldm import strips
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.weights import SHIPPED_AUTOENCODER, network_config
from jseg.runtime import jt

BATCH, SHARD = 8, 256  # images at a time; images between two writes
STAND_IN_SIZE = 128, 96


class Extractor(NamedTuple):
    """A network's name with its weights' hash, and images uint8 [H, W, 3] of any sizes -> float32
    [n, d].
    """

    kind: str
    features: Callable[[Sequence[np.ndarray]], np.ndarray]


def inception(path) -> Extractor:
    """Inception with the user's weights; errors as of `load_inception`."""
    weights = describe(path, sha256=True)
    network = load_inception(weights)
    return Extractor(
        "inception-" + weights.sha256[:16], lambda images: network(prepared(images)).numpy()
    )


def autoencoder() -> Extractor:
    """The stand-in: features of the autoencoder that ships."""
    weights = describe(SHIPPED_AUTOENCODER, sha256=True)
    network = Autoencoder(network_config(weights, "AutoencoderConfig"))
    load_into(network, weights)
    network.eval()

    def features(images: Sequence[np.ndarray]) -> np.ndarray:
        batch = np.stack([to_signed(resize_image(image, *STAND_IN_SIZE)) for image in images])
        with jt.no_grad():
            maps = [h.numpy() for h in _levels(network.encoder, jt.array(batch))]
        columns = [statistic((2, 3)) for h in maps for statistic in (h.mean, h.std)]
        return np.concatenate(columns, axis=1)

    return Extractor("autoencoder-" + weights.sha256[:16], features)


def _levels(encoder, x) -> Iterator:
    """The encoder's activations [B, C_i, H_i, W_i] after each level and after the middle, of images
    x [B, 3, H, W].
    """
    h = strips.convolve(encoder.conv_in, strips.split(x, encoder.channels, encoder.multiple))
    h = [strips.settle(y) for y in h]
    for level in encoder.down:
        h = level(h)
        whole = strips.join(h)
        yield whole
        h = strips.downsample(level.downsample.conv, h) if hasattr(level, "downsample") else [whole]
    yield strips.join(encoder.mid(h))


def digests(paths: Sequence[Path]) -> List[str]:
    """SHA-256 of every file."""
    known: Dict[Path, str] = {}
    for path in paths:
        if path not in known:
            known[path] = sha256(path)
    return [known[path] for path in paths]


def computed(
    paths: Sequence[Path], keys: Sequence[str], extractor: Extractor, store: FeatureStore
) -> Iterator[int]:
    """Add the features of those files that the store lacks; yields how many more images are done.

    After an interruption, another call continues. keys: `digests` of the paths. Raises ImageError
    for a file that is no image.
    """
    path_of = dict(zip(keys, paths))
    missing = store.missing(path_of)
    order = [key for key in path_of if key in missing]

    # Features that are not in the store yet, by key.
    pending: Dict[str, np.ndarray] = {}

    def flush() -> None:
        if pending:
            store.add(list(pending), np.stack(list(pending.values())))
            pending.clear()

    try:
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            images = [read_image(path_of[key]) for key in batch]
            pending.update(zip(batch, extractor.features(images)))
            yield len(batch)
            if len(pending) >= SHARD:
                flush()
    finally:
        flush()
