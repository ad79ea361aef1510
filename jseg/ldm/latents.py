"""Training folder -> cached latents and label maps, each image followed by its mirror image.

The latent of a mirror image is the encoding of the mirrored image; label maps are reduced by
NEAREST first and mirrored then, both as in data_preprocess.py of the release. Latents are those
before the quantiser and are not scaled. The files are `latent_cache`'s.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence, Tuple

import numpy as np

from jseg.data.classes import IGNORED
from jseg.data.examples import Example, fit_image, fit_label, with_digests
from jseg.data.numbering import Classes, Numbering
from jseg.files import DataError
from jseg.images import examine_image, to_signed
from jseg.ldm.cache_files import LABELS, LATENTS, about, digest, read_arrays
from jseg.ldm.latent_cache import Rows, fill
from jseg.runtime import jt
from jseg.training import distributed

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Latents:
    """A prepared training set of N images; rows 2i and 2i + 1 are image i and its mirror image."""

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
    tell: Tell = lambda line: None,
) -> Latents:
    """Encode what the cache lacks, each process its part, and return all of it.

    examples: as a check returns them, with the digests of their files; files without digests are
    read for them. autoencoder: anything with `config` and `encode`, whose file has that SHA-256.
    classes, ignore, fit: as for `jseg.data.examples.check_examples`; without classes, stored ids
    are class ids. `tell` gets lines for the user, while images are encoded one a minute. Digests
    decide what is new, so a changed, added or removed file is noticed, and nothing is encoded
    twice. The same call again, after any interruption, goes on and gives the same bytes. Raises
    DataError in one line for a cache of another autoencoder or size and for latents that are not
    finite, ImageError for files that cannot be read, OSError for a disk that is full.

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

    # What the rows are made from, and how they are made.
    known = distributed.from_first(
        lambda: [with_digests(example, numbering) for example in examples]
    )
    latent = (autoencoder.config.latent_channels, latent_height, latent_width)
    common = about(autoencoder_sha256, width, height, latent)
    keys = np.stack([_keys(example, numbering, fit) for example in known])

    def latents(i: int) -> np.ndarray:
        return _encoded(known[i], autoencoder, width, height, fit)

    def labels(i: int) -> np.ndarray:
        return _label_rows(known[i], numbering, latent_width, latent_height, fit)

    # Every row is there afterwards.
    rows = Rows(keys, latents, labels)
    folder = fill(Path(cache_folder), common, rows, tell, distributed)
    arrays = read_arrays(folder, common, len(known))
    return Latents(
        arrays[LATENTS],
        arrays[LABELS],
        tuple(example.stem for example in known),
        digest(common, keys),
    )


def _encoded(
    example: Example, autoencoder, width: int, height: int, fit: str
) -> np.ndarray:  # float32 [2, C, h, w]
    reading = examine_image(example.image)
    z = encode_with_mirror(autoencoder, fit_image(reading.pixels, width, height, fit))
    if not np.isfinite(z).all():
        raise DataError(
            f"the autoencoder makes NaN or infinite latents of {example.image}; give the weights "
            "that it was trained to (--ae_path)"
        )
    _check_unchanged(example.image, reading.file.sha256, example.image_sha256)
    return z


def _label_rows(
    example: Example, numbering: Numbering, width: int, height: int, fit: str
) -> np.ndarray:  # uint8 [2, h, w]
    if example.label is None:
        return np.full((2, height, width), IGNORED, np.uint8)
    reading = numbering.read(example.label)
    _check_unchanged(example.label, reading.label_map.file.sha256, example.label_sha256)
    label = fit_label(reading.ids, width, height, fit)
    return np.stack([label, label[:, ::-1]])


def encode_with_mirror(autoencoder, image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> float32 [2, C, h, w], of the image and of its mirror image.

    Always these two at a time, so no byte depends on which other images were encoded in this run.
    """
    with jt.no_grad():
        return autoencoder.encode(
            jt.array(np.stack([to_signed(image), to_signed(image[:, ::-1])]))
        ).numpy()


def _keys(example: Example, numbering: Numbering, fit: str) -> np.ndarray:
    """uint8 [2, 32]: what the latents and the label maps of an example are made from."""
    image = _fitted(bytes.fromhex(example.image_sha256), fit)
    label = _label_key(example, numbering, fit)
    return np.frombuffer(image + label, np.uint8).reshape(2, 32)


def _label_key(example: Example, numbering: Numbering, fit: str) -> bytes:
    """What the class ids depend on: the file, the numbering and, where the map is read by colour,
    colours that a person may change.
    """
    by_colour = example.by_colour and numbering.own_colours
    palette = numbering.classes.palette.tobytes() if by_colour else b""
    content = numbering.key + bytes.fromhex(example.label_sha256) + palette
    return _fitted(hashlib.sha256(content).digest(), fit)


def _fitted(key: bytes, fit: str) -> bytes:
    """A key that differs by how what it names is fitted; without, the key itself."""
    return hashlib.sha256(fit.encode("ascii") + key).digest() if fit else key


def _check_unchanged(path: Path, digest: str, expected: str) -> None:
    if digest != expected:
        raise DataError(
            f"{path} was changed after it was checked; give the same command again when the folder "
            "is at rest"
        )
