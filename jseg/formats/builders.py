"""What a pickle may ask for: a table of names, and the array or container that stands for each.

No name is ever imported: unpickler.py looks it up here and refuses, by name, what is not here. The
entries cover what Jittor, NumPy 1 and 2 and the standard library's containers write; pytorch.py
adds PyTorch's.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, Optional, Sequence

import numpy as np

from jseg.formats.tensor import CheckpointError, Memory, Tensor, checked_sizes, dtype_of, unreadable

# Shorter strings are kept as bytes or str, because they may be names; arrays of any interest are
# longer.
SHORT = 4096


class Global:
    """A name that a pickle asked for: never imported, only compared with the table."""

    __slots__ = ("path",)

    def __init__(self, path: str):
        self.path = path


class Record(dict):
    """The attributes of a plain record such as argparse.Namespace, as a dict."""

    def build(self, state) -> None:
        """Take over the attributes; a pickle's BUILD."""
        if not all(isinstance(key, str) for key in state):
            raise ValueError("attributes")
        self.update(state)


class Dtype:
    """A NumPy dtype under construction: the code, then (BUILD) the byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str):
        self.code, self.order = code, "|"
        dtype_of(code)

    def build(self, state) -> None:
        """Take over the byte order; a pickle's BUILD."""
        self.order = state[1]
        if state[2] is not None:
            raise CheckpointError(
                "the file holds an array of a structured NumPy type; expected numbers; export the "
                "weights alone"
            )
        self.numpy()

    def numpy(self) -> np.dtype:
        return dtype_of(self.code, self.order)


class Unbuilt(Tensor):
    """An ndarray between `_reconstruct` and BUILD.

    It is filled in place because the pickle may refer to it already.
    """

    def __init__(self):
        self.blob = None

    def build(self, state) -> None:
        """Become the array; a pickle's BUILD, which comes once."""
        if self.blob is not None:
            raise CheckpointError(
                "the pickle sets attributes of an array twice; the file is corrupt or hostile"
            )
        shape, dtype, fortran, data = state[-4:]
        super().__init__(blob_of(data), dtype.numpy(), shape, strides_of(shape, bool(fortran)))


class LongText:
    """A long text, left undecoded: pickle protocols up to 2 store arrays so."""

    __slots__ = ("blob",)

    def __init__(self, blob):
        self.blob = blob


def blob_of(data):
    """The blob for an array's bytes, in any of the forms in which pickles hold them."""
    if isinstance(data, str):
        data = data.encode("latin-1")
    if isinstance(data, bytes):
        return Memory(data)
    if not (hasattr(data, "read") and hasattr(data, "size")):
        raise CheckpointError(
            "an array's contents are not bytes (an object array?); expected numbers, export the "
            "weights alone"
        )
    return data


def strides_of(shape: Sequence[int], fortran: bool):
    """Strides in elements for Fortran order; None, the default, for C order."""
    if not fortran:
        return None
    strides, shape = [1], checked_sizes(shape)
    for n in shape[:-1]:
        strides.append(strides[-1] * n)
    return strides[: len(shape)]


def _reconstruct(subtype, shape, code):
    if not (isinstance(subtype, Global) and subtype.path == "numpy.ndarray"):
        raise CheckpointError(
            "the pickle builds an array of another class than numpy.ndarray; export the weights "
            "alone"
        )
    return Unbuilt()


def _scalar(dtype, data):
    return _frombuffer(data, dtype, (), "C")


def _frombuffer(data, dtype, shape, order):
    if not isinstance(dtype, Dtype):
        raise ValueError("no dtype")
    return Tensor(blob_of(data), dtype.numpy(), shape, strides_of(shape, order == "F"))


def _encode(text, codec):
    if codec not in ("latin1", "latin-1"):
        raise ValueError("another codec")
    if isinstance(text, LongText):
        text = bytes(text.blob.read(0, text.blob.size)).decode("utf-8", "surrogatepass")
    data = text.encode("latin-1")
    return data if len(data) < SHORT else Memory(data)


def _variable(value):
    if not isinstance(value, Tensor):
        raise ValueError("no array")
    return value


def _dict(*args):
    result = {}
    for arg in args:
        if not isinstance(arg, Global):  # a defaultdict's factory
            for key, value in arg.items() if isinstance(arg, dict) else arg:
                result[checked_key(key)] = value
    return result


def _list(items=(), *limit):
    return list(items)


_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
_TIMES = ("datetime", "date", "time", "timedelta", "timezone")
_VARS = ("jittor.Var", "jittor.jittor_core.Var", "jittor_core.Var", "jittor_core.jittor_core.Var")

# What a pickle may call. Each entry builds an array or a plain container from the pickle's own
# values.
BUILDERS: Dict[str, Callable] = {
    # Containers of the standard library, of which state dicts and optimiser states are made.
    "builtins.dict": _dict,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    "collections.Counter": _dict,
    "builtins.list": _list,
    "builtins.set": _list,
    "builtins.frozenset": _list,
    "collections.deque": _list,
    "builtins.tuple": lambda items=(): tuple(items),
    # The command line that many training programs store beside the weights, as a dict.
    "argparse.Namespace": lambda: Record(),
    "types.SimpleNamespace": lambda: Record(),
    # Settings of programs: paths as text, ranges and times as the numbers they were made of.
    **{f"pathlib.{name}": lambda *parts: "/".join(map(str, parts)) for name in _PATHS},
    **{f"pathlib._local.{name}": lambda *parts: "/".join(map(str, parts)) for name in _PATHS},
    **{f"builtins.{name}": lambda *values: values for name in ("range", "xrange", "slice")},
    **{f"datetime.{name}": lambda *values: values for name in _TIMES},
    # Protocols up to 2 have no byte strings: they store text to be encoded as Latin-1, or call
    # bytes() for an empty one.
    "_codecs.encode": _encode,
    "builtins.bytes": lambda: b"",
    "builtins.bytearray": lambda data=b"", *codec: blob_of(data),
    "builtins.complex": complex,
    # NumPy arrays, scalars and dtypes; NumPy 2 moved its modules from core to _core.
    "numpy.dtype": lambda code, *flags: Dtype(code),
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _frombuffer,
    # Jittor's variable: a wrapper around one ndarray.
    **dict.fromkeys(_VARS, _variable),
}
# What a pickle may mention (as an argument, a key or a value) but not call.
_TYPES = ("int", "float", "str", "bool", "long", "unicode", "object", "Ellipsis")
MENTIONS = {"numpy.ndarray", *(f"builtins.{name}" for name in _TYPES)}
# Element types and layouts of PyTorch that no array here has: named as such, since their files are
# no one's attack.
UNREAD = re.compile(
    r"torch\.(?P<type>float[1-8]_\w+|complex\d+|qu?int\w+|u?int[1-7]|bits\w+)"
    r"|torch\.(?:cuda\.)?(?P<storage>(?:Complex|QU?Int)\w+)Storage"
    r"|torch\._utils\._rebuild_(?P<layout>qtensor|sparse\w*|nested\w*|meta\w*)\w*"
)
# Lightning before 1.5 files the state of each callback under its class. A class as a dictionary key
# does nothing here.
MENTIONED_PACKAGES = ("pytorch_lightning.", "lightning.", "lightning_fabric.")


def canonical(module: str, name: str) -> str:
    """`module.name`, with the renamed modules of Python 2 and NumPy 2 brought to one name."""
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    if module.startswith("numpy._core."):
        module = "numpy.core." + module[len("numpy._core.") :]
    return module + "." + name


def refusal(path: str) -> CheckpointError:
    """The error for a pickle that asks for `path`."""
    match = UNREAD.fullmatch(path)
    if match:
        return unreadable(_kind(**match.groupdict()))
    if not re.fullmatch(r"[\w.<>]{1,120}", path):
        path = ascii(path[:120])
    return CheckpointError(
        f"the pickle asks for {path}, which is no array; nothing was run; expected arrays and "
        "plain containers; if you trust the file, export its weights alone (state_dict of "
        "tensors, or .safetensors) where it was made"
    )


def _kind(type: Optional[str], storage: Optional[str], layout: Optional[str]) -> str:
    """What UNREAD found, in words."""
    if type:
        return f"torch.{type}"
    if storage:
        return ("quantised " if storage.startswith("Q") else "") + storage
    if layout == "qtensor":
        return "quantised tensor"
    return f"{layout.split('_')[0]} tensor"


def checked_key(key):
    """The key, if it may be one of a dict; raises ValueError."""
    # Hashing deeply nested tuples overflows the interpreter's own stack.
    if isinstance(key, tuple):
        if any(isinstance(item, tuple) for item in key):
            raise ValueError("nested key")
        hash(key)
    elif not (isinstance(key, (str, bytes, int, float, Global)) or key is None):
        raise ValueError("key")
    return key
