"""Files that Pillow does not write: PNGs of any depth and chunks, TIFFs of any type of number."""

import struct
import zlib

import numpy as np


def colours():
    rows, columns = np.mgrid[:12, :16]
    return np.stack([columns * 17, rows * 23, (columns + rows) * 9], -1).astype(np.uint8)


def chunk(kind, data, crc=None):
    """A chunk of a PNG, with a checksum that may be wrong."""
    checksum = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png_of(width, height, depth, kind, rows, extra=b""):
    """The bytes of a PNG of any depth and type of colour; rows: of samples, each behind a 0."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + extra + pixels + chunk(b"IEND", b"")


def png(path, array):
    """A 16-bit PNG of gray, gray with alpha, RGB or RGBA, which Pillow does not write."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if array.ndim == 2 else array.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    path.write_bytes(png_of(array.shape[1], array.shape[0], 16, kind, rows))


def tiff(path, array, photometric=None, planar=1, kind=1, **more):
    """An uncompressed TIFF of any type of number [H, W] or [H, W, C]; kind: SampleFormat; more:
    t254=1 and other short tags.
    """
    count = 1 if array.ndim == 2 else array.shape[2]
    data = (
        (array.transpose(2, 0, 1) if planar == 2 else array)
        .astype(array.dtype.newbyteorder("<"))
        .tobytes()
    )
    part, bits = len(data) // (count if planar == 2 else 1), array.dtype.itemsize * 8
    tags = {
        256: ("H", [array.shape[1]]),
        257: ("H", [array.shape[0]]),
        258: ("H", [bits] * count),
        259: ("H", [1]),
        262: ("H", [(2 if count > 2 else 1) if photometric is None else photometric]),
        277: ("H", [count]),
        273: ("I", [8 + i * part for i in range(len(data) // part)]),
        278: ("H", [array.shape[0]]),
        279: ("I", [part] * (len(data) // part)),
        284: ("H", [planar]),
        339: ("H", [kind] * count),
    }
    tags.update({int(name[1:]): ("H", [value]) for name, value in more.items()})
    place, entries, behind = 8 + len(data), b"", b""
    end = place + 6 + 12 * len(tags)
    for tag, (letter, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{letter}", *values)
        if len(packed) > 4:
            packed, behind = struct.pack("<I", end + len(behind)), behind + packed
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[letter], len(values)) + packed.ljust(
            4, b"\0"
        )
    path.write_bytes(
        b"II*\0"
        + struct.pack("<I", place)
        + data
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
        + behind
    )
