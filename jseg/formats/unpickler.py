"""Pickle without execution: an interpreter of the pickle opcodes that can build plain containers
and arrays, nothing else.

No name in a pickle is ever imported. Calls go to the table of builders.py; a name outside of it is
refused, by name, as soon as it is asked for. Long byte strings stay in the file (blobs), so a file
of gigabytes is parsed in milliseconds. Opcodes of protocols 0 to 5, numbered as in the standard
library's pickletools.
"""

from __future__ import annotations

import codecs
import pickle
import struct
from typing import Callable, Dict, Optional, Union

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
    blob_of,
    canonical,
    checked_key,
    refusal,
    strides_of,
)
from jseg.formats.tensor import CheckpointError, Tensor

ALLOWANCE = 1 << 20
STOP = pickle.STOP[0]
CORRUPT = (
    IndexError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    struct.error,
    OverflowError,
    RecursionError,
    MemoryError,
)


class Unpickler:
    """Reads one pickle from `data` (bytes or a map of a file) at `position`; `blob` is the same
    data, for long strings.

    `builders` and `mentions` extend the tables above; `persistent` resolves persistent ids
    (PyTorch's storages).
    """

    def __init__(
        self,
        data,
        blob,
        position: int = 0,
        builders: Optional[Dict[str, Callable]] = None,
        mentions=(),
        persistent: Optional[Callable] = None,
    ):
        self.data, self.blob, self.position, self.persistent = data, blob, position, persistent
        self.builders, self.mentions = {**BUILDERS, **(builders or {})}, MENTIONS.union(mentions)
        self.stack, self.marks, self.memo, self.unbuilt = [], [], {}, []
        # Repeated calls on one remembered value would build far more than the file holds.
        self.budget = 4 * len(data) + ALLOWANCE

    def load(self):
        """The object; `position` is then behind it. Raises CheckpointError for a name outside of
        the tables and for corrupt data.
        """
        try:
            while True:
                code = self.data[self.position]
                self.position += 1
                if code == STOP:
                    break
                HANDLERS[code](self)
            result = self.stack.pop()
            if self.stack or self.marks or any(tensor.blob is None for tensor in self.unbuilt):
                raise ValueError("unfinished")
            return result
        except CheckpointError:
            raise
        except CORRUPT:
            raise CheckpointError(
                f"the pickle is truncated or corrupt (at byte {self.position} of "
                f"{len(self.data)}); copy or download the file again"
            ) from None

    def take(self, size: int) -> bytes:
        if size < 0 or self.position + size > len(self.data):
            raise ValueError("truncated")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, layout: str):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def raw_line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise ValueError("truncated")
        return self.take(end + 1 - self.position)[:-1]

    def line(self) -> str:
        return self.raw_line().decode("utf-8")

    def long_or_bytes(self, size: int):
        """The next `size` bytes: bytes when short, a part of the blob otherwise."""
        if size < SHORT:
            return self.take(size)
        if self.position + size > len(self.data):
            raise ValueError("truncated")
        self.position += size
        return self.blob.part(self.position - size, size)

    def text(self, size: int):
        data = self.long_or_bytes(size)
        return data.decode("utf-8", "surrogatepass") if isinstance(data, bytes) else LongText(data)

    def old_string(self, size: int):
        # Python 2's str is text or bytes; Latin-1 keeps both, and blob_of turns it back.
        data = self.long_or_bytes(size)
        return data.decode("latin-1") if isinstance(data, bytes) else data

    def pop_mark(self) -> list:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def pop_several(self, count: int) -> list:
        if len(self.stack) < count:
            raise ValueError("stack")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def find(self, module: str, name: str) -> None:
        path = canonical(module, name)
        if not (
            path in self.builders or path in self.mentions or path.startswith(MENTIONED_PACKAGES)
        ):
            raise refusal(module + "." + name)
        self.stack.append(Global(path))

    def call(self, function, args) -> None:
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise ValueError("not a call")
        if function.path not in self.builders:
            raise refusal(function.path)
        self.budget -= sum(
            arg.blob.size
            if isinstance(arg, LongText)
            else len(arg)
            if hasattr(arg, "__len__")
            else 1
            for arg in args
        )
        if self.budget < 0:
            raise CheckpointError(
                "the pickle builds far more than it contains; the file is corrupt or hostile"
            )
        result = self.builders[function.path](*args)
        if isinstance(result, Unbuilt):
            self.unbuilt.append(result)
        self.stack.append(result)

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Unbuilt) and target.blob is None:
            shape, dtype, fortran, data = state[-4:]
            Tensor.__init__(
                target, blob_of(data), dtype.numpy(), shape, strides_of(shape, bool(fortran))
            )
        elif isinstance(target, Dtype):
            target.order = state[1]
            if state[2] is not None:
                raise CheckpointError(
                    "the file holds an array of a structured NumPy type; expected numbers; export "
                    "the weights alone"
                )
            target.numpy()
        elif isinstance(target, Record):
            if not all(isinstance(key, str) for key in state):
                raise ValueError("attributes")
            target.update(state)
        elif not isinstance(target, dict):
            # A dict's attributes (state_dict()._metadata) carry no array and are left out; nothing
            # else here has any.
            raise CheckpointError(
                "the pickle sets attributes of something that is not an array; the file is "
                "corrupt or hostile"
            )

    def set_items(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("not a dict")
        for key, value in zip(items[::2], items[1::2]):
            target[checked_key(key)] = value

    def extend(self, items: list) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("not a list")
        self.stack[-1].extend(items)

    def resolve(self, identifier) -> None:
        if self.persistent is None:
            raise CheckpointError(
                "the pickle refers to data outside of itself; expected a whole checkpoint file"
            )
        self.stack.append(self.persistent(identifier))


def _integer(text: str) -> Union[int, bool]:
    if len(text) > 1000:
        raise ValueError("number")
    if text in ("00", "01"):
        return text == "01"
    return int(text[:-1] if text.endswith("L") else text)


def _push(make: Callable) -> Callable:
    def handler(machine):
        value = make(machine)  # first: it may change which list the stack is
        machine.stack.append(value)

    return handler


def _named(machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise ValueError("name")
    machine.find(module, name)


def _mark(machine) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _pop(machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _object(machine) -> None:
    items = machine.pop_mark()
    machine.call(items[0], tuple(items[1:]))


def _instance(machine) -> None:
    items = machine.pop_mark()
    machine.find(machine.line(), machine.line())
    machine.call(machine.stack.pop(), tuple(items))


def _new_with_keywords(machine) -> None:
    function, args, keywords = machine.pop_several(3)
    if keywords != {}:
        raise ValueError("keywords")
    machine.call(function, args)


def _extension(machine) -> None:
    raise CheckpointError(
        "the pickle asks for an object of copyreg's extension registry, which is no array; export "
        "the weights alone"
    )


def _old_text(quoted: str) -> str:
    # Python 2 wrote byte strings as their repr.
    if len(quoted) < 2 or quoted[0] not in "'\"" or quoted[-1] != quoted[0]:
        raise ValueError("string")
    return codecs.escape_decode(quoted[1:-1].encode("ascii"))[0].decode("latin-1")


def _dict_from_mark(machine) -> None:
    items = machine.pop_mark()
    machine.stack.append({})
    machine.set_items(items)


# From here on the standard library's names of the opcodes; its unpickler is not used.
def _opcodes(**handlers: Callable) -> Dict[int, Callable]:
    return {getattr(pickle, name)[0]: handler for name, handler in handlers.items()}


HANDLERS: Dict[int, Callable] = _opcodes(
    PROTO=lambda m: m.take(1),
    FRAME=lambda m: m.take(8),
    MARK=_mark,
    POP=_pop,
    POP_MARK=Unpickler.pop_mark,
    DUP=_push(lambda m: m.stack[-1]),
    NONE=_push(lambda m: None),
    NEWTRUE=_push(lambda m: True),
    NEWFALSE=_push(lambda m: False),
    INT=_push(lambda m: _integer(m.line())),
    LONG=_push(lambda m: _integer(m.line())),
    FLOAT=_push(lambda m: float(m.line())),
    BININT=_push(lambda m: m.number("<i")),
    BININT1=_push(lambda m: m.number("<B")),
    BININT2=_push(lambda m: m.number("<H")),
    BINFLOAT=_push(lambda m: m.number(">d")),
    LONG1=_push(lambda m: int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    LONG4=_push(lambda m: int.from_bytes(m.take(m.number("<i")), "little", signed=True)),
    STRING=_push(lambda m: _old_text(m.line())),
    BINSTRING=_push(lambda m: m.old_string(m.number("<i"))),
    SHORT_BINSTRING=_push(lambda m: m.old_string(m.number("<B"))),
    UNICODE=_push(lambda m: m.raw_line().decode("raw-unicode-escape")),
    BINUNICODE=_push(lambda m: m.text(m.number("<I"))),
    SHORT_BINUNICODE=_push(lambda m: m.text(m.number("<B"))),
    BINUNICODE8=_push(lambda m: m.text(m.number("<Q"))),
    BINBYTES=_push(lambda m: m.long_or_bytes(m.number("<I"))),
    SHORT_BINBYTES=_push(lambda m: m.long_or_bytes(m.number("<B"))),
    BINBYTES8=_push(lambda m: m.long_or_bytes(m.number("<Q"))),
    BYTEARRAY8=_push(lambda m: m.long_or_bytes(m.number("<Q"))),
    EMPTY_TUPLE=_push(lambda m: ()),
    TUPLE=_push(lambda m: tuple(m.pop_mark())),
    TUPLE1=_push(lambda m: tuple(m.pop_several(1))),
    TUPLE2=_push(lambda m: tuple(m.pop_several(2))),
    TUPLE3=_push(lambda m: tuple(m.pop_several(3))),
    EMPTY_LIST=_push(lambda m: []),
    LIST=_push(Unpickler.pop_mark),
    APPEND=lambda m: m.extend(m.pop_several(1)),
    APPENDS=lambda m: m.extend(m.pop_mark()),
    EMPTY_DICT=_push(lambda m: {}),
    DICT=_dict_from_mark,
    SETITEM=lambda m: m.set_items(m.pop_several(2)),
    SETITEMS=lambda m: m.set_items(m.pop_mark()),
    # Sets are kept as lists: none of them holds weights.
    EMPTY_SET=_push(lambda m: []),
    ADDITEMS=lambda m: m.extend(m.pop_mark()),
    FROZENSET=_push(Unpickler.pop_mark),
    PUT=lambda m: m.put(_integer(m.line())),
    BINPUT=lambda m: m.put(m.number("<B")),
    LONG_BINPUT=lambda m: m.put(m.number("<I")),
    MEMOIZE=lambda m: m.put(len(m.memo)),
    GET=_push(lambda m: m.memo[_integer(m.line())]),
    BINGET=_push(lambda m: m.memo[m.number("<B")]),
    LONG_BINGET=_push(lambda m: m.memo[m.number("<I")]),
    GLOBAL=lambda m: m.find(m.line(), m.line()),
    STACK_GLOBAL=_named,
    REDUCE=lambda m: m.call(*m.pop_several(2)),
    NEWOBJ=lambda m: m.call(*m.pop_several(2)),
    NEWOBJ_EX=_new_with_keywords,
    BUILD=Unpickler.build,
    INST=_instance,
    OBJ=_object,
    PERSID=lambda m: m.resolve(m.line()),
    BINPERSID=lambda m: m.resolve(m.stack.pop()),
    EXT1=_extension,
    EXT2=_extension,
    EXT4=_extension,
)
