"""Training folder -> cached latents and label maps, each image followed by its mirror image.

The latent of a mirror image is the encoding of the mirrored image; label maps are reduced by
NEAREST first and mirrored then, both as in data_preprocess.py of the release. Latents are those
before the quantiser and are not scaled. The files are `latent_cache`'s.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Sequence, Tuple

import numpy as np

from jseg.data.image_folder import Example, load_image, load_label
from jseg.data.label_maps import COLOURS, read_values
from jseg.data.validation import Classes, Numbering
from jseg.files import DataError, sha256
from jseg.image_files.decoding import read_header
from jseg.images import to_signed
from jseg.ldm import latent_cache
from jseg.runtime import jt

COLOURED = ("P", "PA", "RGB", "RGBA")
TOLD_SECONDS = 60.0  # between two lines about a long encoding


@dataclass(frozen=True, eq=False)
class Latents:
    """A prepared training set of N images; rows 2i and 2i + 1 are image i and its mirror
    image.
    """

    z: np.ndarray  # float32 [2N, C, h, w], memory-mapped
    labels: np.ndarray  # uint8 [2N, h, w], memory-mapped; 255 where nothing is known
    stems: Tuple[str, ...]  # N
    digest: str  # SHA-256 of all that z and labels were made from, in their order

    def __len__(self) -> int:
        """2N: mirror images are examples of their own."""
        return len(self.z)


def prepare(
    examples: Sequence[Example],
    autoencoder,
    cache_folder,
    *,
    width: int,
    height: int,
    latent_width: int,
    latent_height: int,
    ignore: Sequence[int],
    autoencoder_sha256: str,
    classes: Classes = 256,
    fit: str = "",
    tell: Callable[[str], None] = lambda line: None,
    progress: Optional[Callable[[int, int], None]] = None,
) -> Latents:
    """Encode what the cache lacks and return all of it.

    examples: checked ones. autoencoder: anything with `config` and `encode`, whose file has that
    SHA-256. classes, ignore: as for `examples.check_examples`, and fit; without classes, stored ids
    are class ids. `tell` gets lines for the user, `progress(done, N)` is called after every
    image; without, a line is told every minute. Files are compared by content on every call, so a
    changed, added or removed one is noticed, and what is not new is not encoded again. The same
    call again, after any interruption, goes on and gives the same bytes. Raises DataError in one
    line for a cache of another autoencoder or size and for latents that are not finite, ImageError
    for files that cannot be read, OSError for a disk that is full.

    release: encodes and appends to the arrays on every start, so a second start doubles the data;
    here: one array, made once.
    """
    if not examples:
        raise DataError("no examples to encode; give a folder with images and label maps")
    factor, numbering = autoencoder.config.downsampling, Numbering.of(classes, ignore)
    if (width, height) != (latent_width * factor, latent_height * factor):
        raise ValueError(
            f"images of {width}x{height} become latents of {width // factor}x{height // factor} "
            f"by this autoencoder, not of {latent_width}x{latent_height}"
        )
    keys = np.stack(
        [
            np.frombuffer(
                _image_key(example, fit) + _label_key(example, numbering, fit), np.uint8
            ).reshape(2, 32)
            for example in examples
        ]
    )
    common = latent_cache.about(
        autoencoder_sha256,
        width,
        height,
        (autoencoder.config.latent_channels, latent_height, latent_width),
    )

    def latents(i: int) -> np.ndarray:
        image = load_image(examples[i], width, height, fit)
        z = encode_with_mirror(autoencoder, image)
        if not np.isfinite(z).all():
            raise DataError(
                f"the autoencoder makes NaN or infinite latents of {examples[i].image}; give "
                "the weights that it was trained to (--ae_path)"
            )
        _check_unchanged(examples[i].image, _image_key(examples[i], fit), keys[i, 0])
        return z

    def labels(i: int) -> np.ndarray:
        label = load_label(examples[i], latent_width, latent_height, numbering, fit)
        _check_unchanged(examples[i].label, _label_key(examples[i], numbering, fit), keys[i, 1])
        return np.stack([label, label[:, ::-1]])

    folder = latent_cache.fill(
        Path(cache_folder), common, keys, latents, labels, tell, progress or _every_minute(tell)
    )
    arrays = latent_cache.opened(folder, common, len(examples))
    return Latents(
        arrays[latent_cache.LATENTS],
        arrays[latent_cache.LABELS],
        tuple(example.stem for example in examples),
        latent_cache.digest(common, keys),
    )


def encode_with_mirror(autoencoder, image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> float32 [2, C, h, w], of the image and of its mirror image.

    Always these two at a time, so no byte depends on which other images were encoded in this run.
    """
    with jt.no_grad():
        return autoencoder.encode(
            jt.array(np.stack([to_signed(image), to_signed(image[:, ::-1])]))
        ).numpy()


def _image_key(example: Example, fit: str) -> bytes:
    return _fitted(bytes.fromhex(sha256(example.image)), fit)


def _fitted(key: bytes, fit: str) -> bytes:
    """A key that differs by how what it names is fitted; without, the key itself."""
    return hashlib.sha256(fit.encode("ascii") + key).digest() if fit else key


def _label_key(example: Example, numbering: Numbering, fit: str) -> bytes:
    """What the class ids depend on: the file, the numbering and, where it is read by colour,
    colours that a person may change.
    """
    content = bytes.fromhex(sha256(example.label)) if example.label else b""
    palette = b""
    if example.label and numbering.own_colours and read_header(example.label).mode in COLOURED:
        by_colour = read_values(example.label, numbering.classes).kind == COLOURS
        palette = numbering.classes.palette.tobytes() if by_colour else b""
    return _fitted(hashlib.sha256(numbering.key + content + palette).digest(), fit)


def _check_unchanged(path, key: bytes, expected: np.ndarray) -> None:
    if key != expected.tobytes():
        raise DataError(
            f"{path} was changed while it was being encoded; give the same command again when the "
            "folder is at rest"
        )


def _every_minute(tell: Callable[[str], None]) -> Callable[[int, int], None]:
    started = told = time.monotonic()
    first = None

    def progress(done: int, total: int) -> None:
        nonlocal told, first
        now = time.monotonic()
        first = done - 1 if first is None else first
        if now - told >= TOLD_SECONDS:
            told = now
            left = (now - started) / (done - first) * (total - done)
            tell(f"{done} of {total} images are encoded, about {left / 60:.0f} min left")

    return progress
