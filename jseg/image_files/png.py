"""A PNG reduced to what its pixels and their orientation need.

Texts of megabytes, broken colour profiles, wrong checksums of remarks and bytes after the end say
nothing of the pixels, but make Pillow refuse the file.
"""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO, List

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = (b"tRNS",)  # a wrong checksum there is an error: transparency is part of the image
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
TURNING = (
    b"Raw profile type exif",
    b"Raw profile type APP1",
    b"Raw profile type xmp",
    b"XML:com.adobe.xmp",
)
LARGEST_TEXT = 1 << 20  # Pillow refuses to unpack more than this


class Png(io.BytesIO):
    """The bytes of a PNG, and how many frames the whole file has; of an animation the first is
    left.
    """

    frames = 1


def without_ballast(file: BinaryIO, pixels: bool = True) -> Png:
    """The PNG in `file`, opened at its start, with its critical chunks as they are and, before the
    pixels, the sound ones that may hold an orientation.

    pixels: False leaves out the pixels' bytes, for its header alone. What is missing of a truncated
    file stays missing.
    """
    before: List[bytes] = [file.read(len(SIGNATURE))]
    after: List[bytes] = []
    frames = 1
    while True:
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or not kind.isalpha():
            after.append(head)
            break

        # Critical chunks have a capital first letter.
        if kind[:1].isupper() or kind in NEEDED:
            if kind == b"IDAT" and not pixels:
                file.seek(length + 4, io.SEEK_CUR)
                after[:] = after or [head]
                continue
            chunk = head + file.read(length + 4)
            (after if after or kind == b"IDAT" else before).append(chunk)
            if kind == b"IEND" or len(chunk) < 12 + length:
                break
        elif kind == b"eXIf" or kind in TEXTS:
            body = file.read(length + 4)
            if _is_sound(kind, body) and _tells_orientation(kind, body[:-4]):
                before.append(head + body)
        elif kind == b"acTL":
            frames = int.from_bytes(file.read(length + 4)[:4], "big")
        else:
            file.seek(length + 4, io.SEEK_CUR)
    png = Png(b"".join(before + after))
    png.frames = frames
    return png


def _is_sound(kind: bytes, body: bytes) -> bool:
    return zlib.crc32(kind + body[:-4]) == int.from_bytes(body[-4:], "big")


def _tells_orientation(kind: bytes, data: bytes) -> bool:
    """Whether a chunk may hold an orientation and is small enough for Pillow."""
    if kind == b"eXIf":
        return True
    keyword, _, rest = data.partition(b"\0")
    if keyword not in TURNING:
        return False
    packed = b""
    if kind == b"zTXt":
        packed = rest[1:]
    elif kind == b"iTXt" and rest[:1] == b"\1":
        packed = rest[2:].split(b"\0", 2)[-1]

    # A text that Pillow would not unpack is left out.
    unpack = zlib.decompressobj()
    try:
        unpack.decompress(packed, LARGEST_TEXT)
    except zlib.error:
        return False
    return not unpack.unconsumed_tail
