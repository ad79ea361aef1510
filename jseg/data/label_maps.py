"""The one reader of label maps: a file's pixels become the ids that it stores.

One channel of integers of any depth (1 to 32 bits): the stored values are the ids. A palette of
grays alone: the gray is the id. Colours that are all in the class set, in RGB or in a palette: by
colour. Any other coloured palette: by index. The reading says so wherever a file is not plain 8-bit
gray; `jseg.data.census` says where the readings of many files contradict each other.
Floating-point, lossily compressed and other coloured files are refused. release:
`np.array(Image.open(...))` whatever the mode; here: the same for gray files, the rest as above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image

from jseg.counting import agreeing
from jseg.data.classes import ClassSet
from jseg.data.palettes import are_ids, has_colours_of, ids_of, is_reduced_image
from jseg.files import PathLike
from jseg.image_files.decoding import (
    LOSSY_FORMATS,
    Header,
    ImageError,
    ImageFile,
    decode,
    header_of,
    open_image,
    read_file,
    several_frames,
    stored_bits,
    white_is_zero,
)
from jseg.image_files.orientation import upright

RARE_SUFFIXES = (".pbm", ".pnm", ".gif", ".tga", ".webp")
LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".pgm") + RARE_SUFFIXES

EXPECTED = "expected an 8-bit single-channel PNG of class ids"
LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp", "jpeg2000")
GRAY, LOW, DEEP = "gray", "gray of few bits", "deep gray"
GRAYS, COLOURS, INDICES = "palette of grays", "colours", "indices"


class _Values(NamedTuple):
    """The fields of a `LabelMap` that come from its pixels."""

    values: np.ndarray
    reading: str
    kind: str
    entries: Dict[int, Tuple[int, ...]] = {}


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A label map as its file stores it, and how it was read.

    values: integers [H, W], uint8 where all are 0..255, else int64. reading: a remark, "" for 8-bit
    gray. kind: one of GRAY ... INDICES. entries: {used index: colour}, of the colours that a
    palette has once.
    """

    values: np.ndarray
    reading: str
    kind: str
    entries: Dict[int, Tuple[int, ...]]
    header: Header
    file: ImageFile


def read_label(path: PathLike, classes: Optional[ClassSet] = None) -> np.ndarray:
    """Read a label map as uint8 [H, W] of the ids that it stores.

    classes: whose colours are read as ids. Raises ImageError, with the remedy, for a file that is
    no label map, and for values outside of 0..255.
    """
    values = read_values(path, classes).values
    if values.dtype != np.uint8:
        ids, counts = np.unique(values, return_counts=True)
        raise ImageError(
            f"label {path} holds values {ids[0]}..{ids[-1]}; expected ids within 0..255; values "
            f"found: {fractions(ids, counts)}; {EXPECTED}"
        )
    return values


def read_values(path: PathLike, classes: Optional[ClassSet] = None) -> LabelMap:
    """Read a label map as it is stored; `classes` and errors as for `read_label`."""
    file = read_file(path)
    with open_image(file) as image:
        header, bits, levels = header_of(image), stored_bits(image), _stretched_from(image)
        lossy = image.format in LOSSY_FORMATS or image.info.get("compression") in LOSSY_IN_TIFF
        several, inverted = several_frames(image), white_is_zero(image)
        decode(image, path)
        image = upright(image)

        # What changes ids, or shows others than are stored, is refused.
        if lossy:
            raise ImageError(
                f"label {path} is a {image.format or 'lossy'} file, whose lossy compression "
                f"changes ids; {EXPECTED}, export it again"
            )
        if inverted:
            raise ImageError(
                f"label {path} is a TIFF in which white is 0, so that it shows other numbers than "
                f"it stores; {EXPECTED}, or a TIFF in which black is 0"
            )
        if header.mode == "1" or header.mode == "L" or header.mode.startswith("I"):
            read = _gray(image, bits, levels)
        elif header.mode == "P":
            read = _palette(image, path, classes)
        else:
            read = _coloured(image, path, classes)

    done = ["turned as their orientation says"] * header.turned
    done += ["of several frames, of which the first is taken"] * several
    start = "label maps are " * bool(done and not read.reading)
    reading = start + " and ".join([read.reading] * bool(read.reading) + done)
    return LabelMap(read.values, reading, read.kind, read.entries, header, file)


def _gray(image: Image.Image, bits: int, levels: Optional[Tuple[int, int]]) -> _Values:
    values = np.asarray(image).astype(np.int64)
    if levels is not None:
        # Pillow stretches gray of few levels to the whole range; ids are the stored values.
        stored, shown = levels
        values = (values * stored * 2 + shown) // (2 * shown)
    depth = max(bits, 16) if image.mode.startswith("I") else bits
    if depth == 8:
        return _Values(_narrow(values), "", GRAY)
    reading = f"label maps are {depth}-bit gray; the stored values are the class ids"
    return _Values(_narrow(values), reading, LOW if depth < 8 else DEEP)


def _palette(image: Image.Image, path: PathLike, classes: Optional[ClassSet]) -> _Values:
    indices = np.array(image, dtype=np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    entries = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    palette[: len(entries)] = entries
    used = np.unique(indices)
    shown = palette[used]
    colours = [tuple(colour) for colour in entries.tolist()]
    single = [i for i in used.tolist() if i < len(colours) and colours.count(colours[i]) == 1]
    known = {index: colours[index] for index in single}

    # The gray that a viewer shows is the id: programs that make files smaller reorder palettes. But
    # where other entries have colours, or the grays are no ids, they are colours like these.
    ids = None if classes is None else ids_of(shown, classes)
    coloured = ids is not None and (ids >= 0).all() and has_colours_of(entries, classes)
    if len(entries) and (entries == entries[:, :1]).all():
        if not coloured or are_ids(shown[:, 0], classes):
            reading = "label maps have a gray palette; the gray that it shows is the class id"
            differ = " (the index is another number)" if (shown[:, 0] != used).any() else ""
            return _Values(palette[:, 0][indices], reading + differ, GRAYS, known)

    # By the classes' colours, else by index.
    if coloured:
        table = np.zeros(256, np.int64)
        table[used] = ids
        reading = (
            f"label maps have a palette of the colours of {classes.name}, by which they are read"
        )
        return _Values(_narrow(table[indices]), reading, COLOURS, known)
    if is_reduced_image(indices, palette):
        raise ImageError(
            f"label {path} is an image reduced to a palette of {len(used)} colours, most pixels "
            f"beside a similar one; {EXPECTED}, or the colours of the class set"
        )
    reading = "label maps have a palette; their indices are taken as class ids"
    return _Values(indices, reading, INDICES, known)


def _coloured(image: Image.Image, path: PathLike, classes: Optional[ClassSet]) -> _Values:
    if image.mode == "F":
        raise ImageError(
            f"label {path} is a floating-point file; {EXPECTED}, save the ids as integers"
        )
    pixels = np.asarray(image.convert("RGBA"))
    transparent = (pixels[..., 3] < 255).any()
    flat = pixels[..., :3].astype(np.int64) @ np.array([65536, 256, 1])
    codes, places, counts = np.unique(flat, return_inverse=True, return_counts=True)
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)

    ids = np.full(len(codes), -1) if classes is None else ids_of(colours, classes)
    if (ids >= 0).all() and not transparent:
        reading = f"label maps are in the colours of {classes.name}, by which they are read"
        return _Values(_narrow(ids[places].reshape(flat.shape)), reading, COLOURS)

    # Not by colour: say why.
    if transparent:
        raise ImageError(
            f"label {path} has mode {image.mode} with transparent pixels, of which no class is "
            f"known; {EXPECTED}, or the colours of the class set without transparency"
        )
    if (colours == colours[:, :1]).all():
        raise ImageError(
            f"label {path} has mode {image.mode} with equal channels (gray saved in colour); "
            f"{EXPECTED}, save one channel"
        )
    unknown = ""
    if classes is not None:
        most = tuple(colours[np.argmax(np.where(ids < 0, counts, -1))].tolist())
        unknown = (
            f": {(ids < 0).sum()} of its {len(codes)} colours "
            f"{agreeing((ids < 0).sum(), '[is|are]')} not in {classes.name}, such as {most}"
        )
    raise ImageError(
        f"label {path} has mode {image.mode} and looks like a colour-coded map{unknown}; "
        f"{EXPECTED}, turn its colours back into ids or give the class set that has them "
        "(--classes)"
    )


def _narrow(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8) if values.min() >= 0 and values.max() <= 255 else values


def _stretched_from(image: Image.Image) -> Optional[Tuple[int, int]]:
    """(largest value stored, what Pillow makes of it) for gray with few levels, else None."""
    bits = stored_bits(image)
    if image.mode == "L" and bits in (2, 4):
        return 2**bits - 1, 255
    if image.format == "PPM" and image.mode in ("L", "I") and image.tile:
        decoder, *_, arguments = image.tile[0]
        if str(decoder).startswith("ppm"):
            return int(arguments[-1]), 255 if image.mode == "L" else 65535
    return None


def fractions(values: np.ndarray, counts: np.ndarray, total: Optional[int] = None) -> str:
    """'0 (41 %), 3 (20 %)' of values [n] and their pixel counts [n] out of `total`, at most 12."""
    whole = int(counts.sum()) if total is None else total
    order = np.argsort(-counts, kind="stable")
    parts = []
    for place in order[:12]:
        percent = 100.0 * counts[place] / whole
        parts.append(f"{values[place]} ({f'{percent:.0f}' if percent >= 1 else '<1'} %)")
    return ", ".join(parts) + (f" and {len(order) - 12} more" if len(order) > 12 else "")
