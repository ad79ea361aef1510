"""CUDA source to the C++ that device.h completes: launches become calls of emulation::launch, and
`__shared__` declarations references to memory of the block. Lines keep their numbers.

    scaled<float><<<blocks, 256>>>(n, x);
    emulation::launch(emulation::configured(blocks, 256), "scaled",
                      [&](auto&... a) { scaled<float>(a...); }, n, x);

    __shared__ float sums[256];
    typedef float sums_t[256]; sums_t& sums = emulation::shared<sums_t>([] {});

Comments and strings are left as they are. The text is read without the preprocessor: a macro whose
expansion launches a kernel is not seen, unless its definition is translated too.
"""

from __future__ import annotations

import re
from typing import Iterator, List, Tuple

OPENING, CLOSING = "([{", ")]}"
NO_CODE = r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'"
DYNAMIC = re.compile(
    r"\bextern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([\w\s:]+?)\s+(\w+)\s*\[\s*\]\s*;"
)
FIXED = re.compile(r"(?:\bvolatile\s+)?__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([^;]+);")
FIRST = re.compile(r"(.+?)\s*\b(\w+)\s*((?:\[[^\]]*\]\s*)*)", re.S)  # type, name, sizes
FURTHER = re.compile(r"\s*(\w+)\s*((?:\[[^\]]*\]\s*)*)", re.S)  # name, sizes


def translate(text: str) -> str:
    """The C++ of that CUDA source. Raises ValueError for a launch or declaration that it cannot
    read.
    """
    hidden, pieces = _hide(text)
    translated = _launches(_shared_memory(hidden))
    return re.sub("\0(\\d+)\0", lambda match: pieces[int(match[1])], translated)


def _hide(text: str) -> Tuple[str, List[str]]:
    """The text with a number in place of every comment and string, and these."""
    pieces: List[str] = []

    def number(match) -> str:
        pieces.append(match[0])
        return f"\0{len(pieces) - 1}\0"

    return re.sub(NO_CODE, number, text, flags=re.S), pieces


# -- launches --------------------------------------------------------------------------------------


def _launches(text: str) -> str:
    parts, copied = [], 0
    while True:
        at = text.find("<<<", copied)
        if at < 0:
            return "".join(parts) + text[copied:]

        # kernel<<<configuration>>>(arguments)
        start, stop = _start_of_name(text, at), _find(text, at + 3, ">>>")
        kernel, configuration = text[start:at].strip(), text[at + 3 : stop]
        bracket = re.compile(r"\s*\(").match(text, stop + 3)
        if not kernel or not bracket:
            raise ValueError(f"cannot read the launch {text[start : at + 60]!r}")
        end = _find(text, bracket.end(), ")")
        arguments = text[bracket.end() : end]

        name = re.match(r"[\w:]+", kernel)[0]
        function = f"[&](auto&... a) {{ {kernel}(a...); }}"
        launch = f'emulation::configured({configuration}), "{name}", {function}'
        rest = f", {arguments}" if arguments.strip() else ""
        parts += [text[copied:start], f"emulation::launch({launch}{rest})"]
        copied = end + 1


def _start_of_name(text: str, end: int) -> int:
    """Where the name of the kernel begins that, with its template arguments, ends at `end`."""
    i = len(text[:end].rstrip())
    if text[i - 1] == ">":
        depth = 0
        for i in range(i - 1, -1, -1):
            depth += (text[i] == ">") - (text[i] == "<")
            if depth == 0:
                break
        i = len(text[:i].rstrip())
    return i - len(re.search(r"[\w:]*$", text[:i])[0])


def _find(text: str, start: int, end: str) -> int:
    """Where `end` stands outside of brackets that open after `start`."""
    depth = 0
    for i in range(start, len(text)):
        if depth == 0 and text.startswith(end, i):
            return i
        depth += (text[i] in OPENING) - (text[i] in CLOSING)
    raise ValueError(f"cannot find the {end} of the launch {text[start - 30 : start + 60]!r}")


# -- shared memory ---------------------------------------------------------------------------------


def _shared_memory(text: str) -> str:
    text = DYNAMIC.sub(r"\1* \2 = (\1*)emulation::dynamic_shared();", text)
    return FIXED.sub(lambda match: " ".join(_declarations(match[1])), text)


def _declarations(text: str) -> Iterator[str]:
    """`float a[2], b` as one declaration for each name."""
    first, *further = _split(text)
    whole = FIRST.fullmatch(first.strip())
    names = [whole and whole.groups()[1:]] + [
        match and match.groups() for match in map(FURTHER.fullmatch, further)
    ]
    if None in names:
        raise ValueError(f"cannot read the declaration __shared__ {text}")
    for name, sizes in names:
        kind = f"{name}_t"
        place = f"emulation::shared<{kind}>([] {{}})"
        yield f"typedef {whole[1]} {kind}{sizes}; {kind}& {name} = {place};"


def _split(text: str) -> List[str]:
    """At commas outside of brackets."""
    depth, start, parts = 0, 0, []
    for i, character in enumerate(text):
        depth += (character in OPENING + "<") - (character in CLOSING + ">")
        if character == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return parts + [text[start:]]
