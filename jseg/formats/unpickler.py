"""Pickle without execution: a pickle builds plain containers and arrays, and runs nothing.

No name in a pickle is ever imported: `find_class` looks it up in the table of builders.py and
refuses, by name, what is not there. The bytes of arrays stay in the file until they are read.

This is the standard library's unpickler, in its form in Python (`pickle._Unpickler`, which joblib
extends in the same way), with other handlers for some opcodes. Its form in C (`pickle.Unpickler`)
has no handlers to replace and cannot be used. It reads every array into memory: 529 MB for a Jittor
file of 520 MB, which takes 41 MB here. A dictionary key of 200,000 nested tuples overflows its
stack and ends the process, and ten bytes with a large memo index make it take 2 GB.
"""

from __future__ import annotations

import codecs
import pickle
import struct
from typing import Callable, Dict, Optional

from jseg.formats.builders import (
    BUILDERS,
    MENTIONED_PACKAGES,
    MENTIONS,
    SHORT,
    Dtype,
    Global,
    LongText,
    Record,
    Unbuilt,
    canonical,
    checked_key,
    refusal,
)
from jseg.formats.tensor import CheckpointError

ALLOWANCE = 1 << 20
CORRUPT = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


class Stream:
    """Bytes, or a map of a file, read from `position` on."""

    def __init__(self, data, position: int):
        self.data, self.position = data, position

    def read(self, size: int) -> bytes:
        self.skip(size)
        return self.data[self.position - size : self.position]

    def readline(self) -> bytes:
        """A short line: a number of a million digits would take forever to read."""
        line = self.long_line()
        if len(line) > SHORT:
            raise ValueError("line")
        return line

    def long_line(self) -> bytes:
        """A line of any length."""
        end = self.data.find(b"\n", self.position)
        return self.read(end + 1 - self.position)

    def skip(self, size: int) -> None:
        """Go on without reading; raises ValueError at the end of the data."""
        if size < 0 or self.position + size > len(self.data):
            raise ValueError("truncated")
        self.position += size


class Unpickler(pickle._Unpickler):
    """Reads one pickle from `data` (bytes or a map of a file) at `position`.

    `blob` is the same data, for long strings. `builders` and `mentions` extend the tables of
    builders.py; `persistent` resolves persistent ids (PyTorch's storages).
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(
        self,
        data,
        blob,
        position: int = 0,
        builders: Optional[Dict[str, Callable]] = None,
        mentions=(),
        persistent: Optional[Callable] = None,
    ):
        self.stream, self.blob, self.persistent = Stream(data, position), blob, persistent
        super().__init__(self.stream, encoding="latin-1")
        self.builders, self.mentions = {**BUILDERS, **(builders or {})}, MENTIONS.union(mentions)
        self.unbuilt = []
        # Repeated calls on one remembered value would build far more than the file holds.
        self.budget = 4 * len(data) + ALLOWANCE

    @property
    def position(self) -> int:
        """The byte behind what was read."""
        return self.stream.position

    def load(self):
        """The object; `position` is then behind it.

        Raises CheckpointError for a name outside of the tables and for corrupt data.
        """
        try:
            result = super().load()
            if self.stack or self.metastack or any(array.blob is None for array in self.unbuilt):
                raise ValueError("unfinished")
            return result
        except CheckpointError:
            raise
        except CORRUPT:
            raise CheckpointError(
                f"the pickle is truncated or corrupt (at byte {self.position} of "
                f"{len(self.stream.data)}); copy or download the file again"
            ) from None

    def find_class(self, module: str, name: str) -> Global:
        """The name itself, which nothing but `load_reduce` calls, by the table."""
        path = canonical(module, name)
        known = path in self.builders or path in self.mentions
        if not known and not path.startswith(MENTIONED_PACKAGES):
            raise refusal(module + "." + name)
        return Global(path)

    def persistent_load(self, pid):
        if self.persistent is None:
            raise CheckpointError(
                "the pickle refers to data outside of itself; expected a whole checkpoint file"
            )
        return self.persistent(pid)

    # The handlers of opcodes that differ from the standard library's
    # ----------------------------------------------------------------------------------------------

    def load_frame(self) -> None:
        self.stream.skip(8)  # a frame's length, which only buffers need

    def load_bytes(self, layout: str):
        """The next bytes, with their length before them; long ones stay in the file."""
        (size,) = struct.unpack(layout, self.read(struct.calcsize(layout)))
        if size < SHORT:
            return self.read(size)
        self.stream.skip(size)
        return self.blob.part(self.position - size, size)

    def load_string(self) -> None:
        # The repr of a str of Python 2, which is text or bytes; Latin-1 keeps both.
        quoted = self.stream.long_line().strip()
        if len(quoted) < 2 or quoted[:1] not in (b"'", b'"') or quoted[-1:] != quoted[:1]:
            raise ValueError("string")
        self.append(codecs.escape_decode(quoted[1:-1])[0].decode("latin-1"))

    def load_unicode(self) -> None:
        self.append(self.stream.long_line()[:-1].decode("raw-unicode-escape"))

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise ValueError("not a call")
        if function.path not in self.builders:
            raise refusal(function.path)
        self.budget -= sum(map(_size, args))
        if self.budget < 0:
            raise CheckpointError(
                "the pickle builds far more than it contains; the file is corrupt or hostile"
            )
        result = self.builders[function.path](*args)
        if isinstance(result, Unbuilt):
            self.unbuilt.append(result)
        self.append(result)

    def load_obj(self) -> None:
        function, *args = self.pop_mark()
        self.stack += [function, tuple(args)]
        self.load_reduce()

    def load_inst(self) -> None:
        args = self.pop_mark()
        self.load_global()
        self.append(tuple(args))
        self.load_reduce()

    def load_newobj_ex(self) -> None:
        if self.stack.pop() != {}:
            raise ValueError("keywords")
        self.load_reduce()

    def load_ext(self) -> None:
        raise CheckpointError(
            "the pickle asks for an object of copyreg's extension registry, which is no array; "
            "export the weights alone"
        )

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, (Unbuilt, Dtype, Record)):
            target.build(state)
        elif not isinstance(target, dict):
            # Attributes of a dict (state_dict()._metadata) carry no array and are left out.
            raise CheckpointError(
                "the pickle sets attributes of something that is not an array; the file is "
                "corrupt or hostile"
            )

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.set_items(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def load_setitems(self) -> None:
        self.set_items(self.pop_mark())

    def set_items(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("not a dict")
        for key, value in zip(items[::2], items[1::2]):
            target[checked_key(key)] = value

    def load_append(self) -> None:
        self.extend([self.stack.pop()])

    def load_appends(self) -> None:
        self.extend(self.pop_mark())

    def extend(self, items: list) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("not a list")
        self.stack[-1].extend(items)


def _size(argument) -> int:
    if isinstance(argument, LongText):
        return argument.blob.size
    return len(argument) if hasattr(argument, "__len__") else 1


def _text(data):
    return data.decode("utf-8", "surrogatepass") if isinstance(data, bytes) else LongText(data)


def _old_text(data):
    # A str of Python 2 is text or bytes; blob_of turns Latin-1 back.
    return data.decode("latin-1") if isinstance(data, bytes) else data


def _handlers(**handlers: Callable) -> Dict[int, Callable]:
    return {getattr(pickle, name)[0]: handler for name, handler in handlers.items()}


Unpickler.dispatch.update(
    _handlers(
        FRAME=Unpickler.load_frame,
        BINBYTES=lambda m: m.append(m.load_bytes("<I")),
        BINBYTES8=lambda m: m.append(m.load_bytes("<Q")),
        BYTEARRAY8=lambda m: m.append(m.load_bytes("<Q")),
        BINUNICODE=lambda m: m.append(_text(m.load_bytes("<I"))),
        BINUNICODE8=lambda m: m.append(_text(m.load_bytes("<Q"))),
        BINSTRING=lambda m: m.append(_old_text(m.load_bytes("<i"))),
        STRING=Unpickler.load_string,
        UNICODE=Unpickler.load_unicode,
        REDUCE=Unpickler.load_reduce,
        NEWOBJ=Unpickler.load_reduce,
        OBJ=Unpickler.load_obj,
        INST=Unpickler.load_inst,
        NEWOBJ_EX=Unpickler.load_newobj_ex,
        EXT1=Unpickler.load_ext,
        EXT2=Unpickler.load_ext,
        EXT4=Unpickler.load_ext,
        BUILD=Unpickler.load_build,
        # Hashing deeply nested keys would overflow the interpreter's own stack, hence `set_items`;
        # sets are kept as lists, since none of them holds weights.
        DICT=Unpickler.load_dict,
        SETITEM=Unpickler.load_setitem,
        SETITEMS=Unpickler.load_setitems,
        EMPTY_SET=lambda m: m.append([]),
        ADDITEMS=Unpickler.load_appends,
        FROZENSET=pickle._Unpickler.load_list,
        APPEND=Unpickler.load_append,
        APPENDS=Unpickler.load_appends,
    )
)
