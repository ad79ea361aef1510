"""The one reader of label maps: a file's pixels become the ids that it stores.

One channel of integers of any depth (1 to 32 bits): the stored values are the ids. A palette of
grays alone: the gray is the id. Colours that are all in the class set, in RGB or in a palette: by
colour. Any other coloured palette: by index. Whatever is not plain 8-bit gray is told with the
result; `jseg.data.census` says what the readings of many files have against each other.
Floating-point, lossily compressed and other coloured files are refused. release:
`np.array(Image.open(...))` whatever the mode; here: the same for gray files, the rest as above.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image

from jseg.data.classes import ClassSet
from jseg.files import PathLike
from jseg.image_files.decoding import (
    LOSSY_FORMATS,
    ImageError,
    decode,
    opened,
    orientation,
    several_frames,
    upright,
    white_is_zero,
)

RARE_SUFFIXES = (".pbm", ".pnm", ".gif", ".tga", ".webp")
LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".pgm") + RARE_SUFFIXES

EXPECTED = "expected an 8-bit single-channel PNG of class ids"
TIFF_BITS = 258  # the tag BitsPerSample
LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp", "jpeg2000")
GRAY, LOW, DEEP = "gray", "gray of few bits", "deep gray"
GRAYS, COLOURS, INDICES = "palette of grays", "colours", "indices"

# An image reduced to a palette is no label map: neighbouring pixels differ often, and by little.
# Photographs in 16 colours: 17 to 40 % of pairs, at 0.2 to 0.5 of the usual distance; label maps of
# CamVid, ADE20K, COCO-Stuff and the challenge: under 4 %, at 0.7 and more.
SPECKLED, SMOOTH, LEAST_PIXELS = 0.08, 0.6, 1024


class LabelMap(NamedTuple):
    """Integers [H, W] as a file stores them, and how they were read ("" for 8-bit gray).

    kind: one of GRAY ... INDICES. entries: {used index: colour}, of colours that a palette has
    once.
    """

    values: np.ndarray
    reading: str
    kind: str
    entries: Dict[int, Tuple[int, ...]] = {}


def read_label(path: PathLike, classes: Optional[ClassSet] = None) -> np.ndarray:
    """Read a label map as uint8 [H, W] of the ids that it stores.

    classes: whose colours are read as ids. Raises ImageError, with the remedy, for a file that is
    no label map, and for values outside of 0..255.
    """
    values = read_values(path, classes).values
    if values.dtype != np.uint8:
        found = np.unique(values, return_counts=True)
        raise ImageError(
            f"label {path} holds values {found[0][0]}..{found[0][-1]}; expected ids within 0..255; "
            f"values found: {shares(*found)}; {EXPECTED}"
        )
    return values


def read_values(path: PathLike, classes: Optional[ClassSet] = None) -> LabelMap:
    """Read a label map as it is stored, with the reading that was taken; errors as of `read_label`.

    Values are uint8 where all are 0..255, else int64.
    """
    with opened(path) as image:
        mode, bits, levels = image.mode, _bit_depth(image), _stretched_from(image)
        lossy = image.format in LOSSY_FORMATS or image.info.get("compression") in LOSSY_IN_TIFF
        turned, several = orientation(image) != 1, several_frames(image)
        inverted = white_is_zero(image)
        decode(image, path)
        image = upright(image)
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
        if mode == "1" or mode == "L" or mode.startswith("I"):
            found = _gray(image, bits, levels)
        elif mode == "P":
            found = _palette(image, path, classes)
        else:
            found = _coloured(image, path, classes)

    done = ["turned as their orientation says"] * turned
    done += ["of several frames, of which the first is taken"] * several
    words = [found.reading] * bool(found.reading) + done
    start = "label maps are " * bool(done and not found.reading)
    return found._replace(reading=start + " and ".join(words))


def _gray(image: Image.Image, bits: int, levels: Optional[Tuple[int, int]]) -> LabelMap:
    values = np.asarray(image).astype(np.int64)
    if levels is not None:
        # Pillow stretches gray of few levels to the whole range; ids are the stored values.
        stored, shown = levels
        values = (values * stored * 2 + shown) // (2 * shown)
    depth = 1 if image.mode == "1" else max(bits, 16) if image.mode.startswith("I") else bits
    reading = (
        ""
        if depth == 8
        else f"label maps are {depth}-bit gray; the stored values are the class ids"
    )
    kind = GRAY if depth == 8 else LOW if depth < 8 else DEEP
    return LabelMap(_narrow(values), reading, kind)


def _palette(image: Image.Image, path: PathLike, classes: Optional[ClassSet]) -> LabelMap:
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
    ids = None if classes is None else _ids_of(shown, classes)
    coloured = ids is not None and (ids >= 0).all() and _has_colours_of(entries, classes)
    if len(entries) and (entries == entries[:, :1]).all():
        if not coloured or _are_ids(shown[:, 0], classes):
            reading = "label maps have a gray palette; the gray that it shows is the class id"
            differ = " (the index is another number)" if (shown[:, 0] != used).any() else ""
            return LabelMap(palette[:, 0][indices], reading + differ, GRAYS, known)

    if coloured:
        table = np.zeros(256, np.int64)
        table[used] = ids
        return LabelMap(
            _narrow(table[indices]),
            f"label maps have a palette of the colours of {classes.name}, by which they are read",
            COLOURS,
            known,
        )

    if _is_reduced_image(indices, palette):
        raise ImageError(
            f"label {path} is an image reduced to a palette of {len(used)} colours, most pixels "
            f"beside a similar one; {EXPECTED}, or the colours of the class set"
        )
    reading = "label maps have a palette; their indices are taken as class ids"
    return LabelMap(indices, reading, INDICES, known)


def _coloured(image: Image.Image, path: PathLike, classes: Optional[ClassSet]) -> LabelMap:
    if image.mode == "F":
        raise ImageError(
            f"label {path} is a floating-point file; {EXPECTED}, save the ids as integers"
        )
    pixels = np.asarray(image.convert("RGBA"))
    clear = (pixels[..., 3] < 255).any()
    flat = pixels[..., :3].astype(np.int64) @ np.array([65536, 256, 1])
    codes, places, counts = np.unique(flat, return_inverse=True, return_counts=True)
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)

    ids = None if classes is None else _ids_of(colours, classes)
    if ids is not None and (ids >= 0).all() and not clear:
        return LabelMap(
            _narrow(ids[places].reshape(flat.shape)),
            f"label maps are in the colours of {classes.name}, by which they are read",
            COLOURS,
        )
    if clear:
        raise ImageError(
            f"label {path} has mode {image.mode} with transparent pixels, of which no class is "
            f"known; {EXPECTED}, or the colours of the class set without transparency"
        )

    gray = (colours == colours[:, :1]).all()
    if gray:
        raise ImageError(
            f"label {path} has mode {image.mode} with equal channels (gray saved in colour); "
            f"{EXPECTED}, save one channel"
        )
    unknown = ""
    if ids is not None and (ids < 0).any():
        first = int(np.argmax(np.where(ids < 0, counts, -1)))
        unknown = (
            f": {int((ids < 0).sum())} of its {len(codes)} colours are not in {classes.name}, "
            f"such as {tuple(colours[first].tolist())}"
        )
    raise ImageError(
        f"label {path} has mode {image.mode} and looks like a colour-coded map{unknown}; "
        f"{EXPECTED}, turn its colours back into ids or give the class set that has them "
        "(--classes)"
    )


def _ids_of(colours: np.ndarray, classes: ClassSet) -> np.ndarray:
    """int64 [n]: what `classes` stores for each colour [n, 3]; -1: unknown; black is ignored."""
    ids = np.full(len(colours), -1, np.int64)
    stored = np.array(classes.file_ids or range(len(classes)))
    if classes.file_ignore:
        ids[(colours == 0).all(axis=1)] = classes.file_ignore[0]
    matches = (
        np.asarray(colours, np.int64)[:, None] == classes.palette.astype(np.int64)[None]
    ).all(axis=2)  # [n, N]
    found = matches.any(axis=1)
    ids[found] = stored[matches.argmax(axis=1)[found]]
    return ids


def _has_colours_of(entries: np.ndarray, classes: ClassSet) -> bool:
    """Whether a palette [n, 3] is of the classes: black alone, which they may ignore, says
    nothing.
    """
    own = {tuple(colour) for colour in classes.palette.tolist()}
    others = {tuple(colour) for colour in entries.tolist()} - {(0, 0, 0)}
    return bool(own & others) and 2 * len(own & others) >= len(others)


def _are_ids(values: np.ndarray, classes: ClassSet) -> bool:
    """Whether the classes store every one of these values."""
    stored = classes.file_ids or range(len(classes))
    return bool(np.isin(values, [*stored, *classes.file_ignore]).all())


def _is_reduced_image(indices: np.ndarray, palette: np.ndarray) -> bool:
    """Whether a palette file is an image in few colours: many neighbours differ, but by little."""
    if indices.size < LEAST_PIXELS:
        return False
    pairs = [(indices[:, 1:], indices[:, :-1]), (indices[1:], indices[:-1])]
    one, other = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    differ = one != other
    if differ.mean() < SPECKLED:
        return False

    # As close as this are few pairs of pixels that were not neighbours.
    colours = palette.astype(np.float64)
    near = np.abs(colours[one[differ]] - colours[other[differ]]).sum(axis=1).mean()
    flat = indices.ravel()
    shuffled = flat[np.random.default_rng(0).permutation(flat.size)]
    apart = flat != shuffled
    return bool(
        near < SMOOTH * np.abs(colours[flat[apart]] - colours[shuffled[apart]]).sum(axis=1).mean()
    )


def _narrow(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8) if values.min() >= 0 and values.max() <= 255 else values


def _bit_depth(image: Image.Image) -> int:
    """Bits per sample as stored; 8 where the format does not say."""
    if image.format == "PNG":
        position = image.fp.tell()
        image.fp.seek(24)  # IHDR comes first
        depth = image.fp.read(1)[0]
        image.fp.seek(position)
        return depth
    tags = getattr(image, "tag_v2", {})
    depth = tags.get(TIFF_BITS, 8)
    return int(depth[0] if isinstance(depth, tuple) else depth)


def _stretched_from(image: Image.Image) -> Optional[Tuple[int, int]]:
    """(largest value stored, what Pillow makes of it) for gray with few levels, else None."""
    bits = _bit_depth(image)
    if image.mode == "L" and bits in (2, 4):
        return 2**bits - 1, 255
    if (
        image.format == "PPM"
        and image.mode in ("L", "I")
        and image.tile
        and str(image.tile[0][0]).startswith("ppm")
    ):
        return int(image.tile[0][3][-1]), 255 if image.mode == "L" else 65535
    return None


def shares(values: np.ndarray, counts: np.ndarray, total: Optional[int] = None) -> str:
    """'0 (41 %), 3 (20 %)' of values [n] and their pixel counts [n] out of `total`, at most 12."""
    total = int(counts.sum()) if total is None else total
    order = np.argsort(-counts, kind="stable")
    parts = []
    for place in order[:12]:
        percent = 100.0 * counts[place] / total
        parts.append("%d (%s %%)" % (values[place], f"{percent:.0f}" if percent >= 1 else "<1"))
    return ", ".join(parts) + (f" and {len(order) - 12} more" if len(order) > 12 else "")
