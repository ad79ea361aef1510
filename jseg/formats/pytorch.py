"""PyTorch's files without PyTorch: the zip format (since 1.6) and the older stream of pickles.

Both are a pickle whose tensors are views (offset, size, stride) of storages; the storages are
entries of the archive, or follow the pickle. Layouts as written by torch.save; see
torch/serialization.py and torch/_utils.py for the names.
"""

from __future__ import annotations

from typing import BinaryIO, Callable, Dict, Optional

from jseg.formats.builders import Global
from jseg.formats.tensor import BFLOAT16, CheckpointError, Region, Tensor, checked_sizes, dtype_of
from jseg.formats.unpickler import Unpickler
from jseg.formats.zip_archive import Archive

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_MAGIC_BYTES = LEGACY_MAGIC.to_bytes(10, "little")
MAX_PICKLE = 1 << 28
BIG_ENDIAN = (
    "the file was written on a big-endian machine; expected little-endian, save it again on the "
    "other machine as .safetensors"
)

_CODES = {
    "Double": "f8",
    "Float": "f4",
    "Half": "f2",
    "BFloat16": BFLOAT16,
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "b1",
}
# Storage classes name the element type; the cuda ones are those of files saved from a GPU.
STORAGES = {
    f"torch.{place}{name}Storage": code for name, code in _CODES.items() for place in ("", "cuda.")
}
STORAGES.update(
    {
        "torch.UntypedStorage": "u1",
        "torch.storage.UntypedStorage": "u1",
        "torch.storage._UntypedStorage": "u1",
    }
)
DTYPES = {
    "torch." + name: code
    for name, code in {
        "float64": "f8",
        "float32": "f4",
        "float16": "f2",
        "bfloat16": BFLOAT16,
        "int64": "i8",
        "int32": "i4",
        "int16": "i2",
        "int8": "i1",
        "uint8": "u1",
        "uint16": "u2",
        "uint32": "u4",
        "uint64": "u8",
        "bool": "b1",
    }.items()
}


class Storage:
    """A blob of `count` elements of one type. Its bytes are in `blob`, filled in once it is known
    where they are, or in `owner`.
    """

    def __init__(self, code: str, count: int, owner: Optional["Storage"] = None, start: int = 0):
        self.dtype = code if code == BFLOAT16 else dtype_of(code)
        self.code, self.itemsize = code, 2 if code == BFLOAT16 else self.dtype.itemsize
        self.size, (self.start,) = (
            checked_sizes((count,))[0] * self.itemsize,
            checked_sizes((start,)),
        )
        self.owner, self.blob = owner, None
        if owner is not None and self.start + self.size > owner.size:
            raise CheckpointError(
                "a storage lies outside of the storage that it is a view of; the file is corrupt"
            )

    def read(self, start: int, size: int):
        return (self.owner or self.blob).read(self.start + start, size)

    def of_type(self, storage_type: Global) -> "Storage":
        """The same bytes under another element type; a file may refer to them under two."""
        code = STORAGES[storage_type.path]
        return (
            self
            if code == self.code
            else Storage(code, self.size // Storage(code, 0).itemsize, self)
        )


def read_zip(archive: Archive, prefix: str):
    """The object of a zip-format file whose entries lie under `prefix` ("archive/" or any
    other).
    """
    names = set(archive.names())
    if (
        prefix + "byteorder" in names
        and bytes(archive.blob(prefix + "byteorder").read(0, 3)) == b"big"
    ):
        raise CheckpointError(BIG_ENDIAN)
    storages: Dict[str, Storage] = {}

    def persistent(identifier) -> Storage:
        kind, storage_type, key, _, count = identifier
        if kind != "storage" or not isinstance(key, str):
            raise ValueError("persistent id")
        if key not in storages:
            storage = Storage(STORAGES[storage_type.path], count)
            storage.blob = archive.blob(prefix + "data/" + key)
            if storage.blob.size != storage.size:
                raise CheckpointError(
                    f"storage {key!r:.20} holds {storage.blob.size} bytes; expected "
                    f"{storage.size}; the file is corrupt"
                )
            storages[key] = storage
        return storages[key].of_type(storage_type)

    blob = archive.blob(prefix + "data.pkl")
    if blob.size > MAX_PICKLE:
        raise CheckpointError(
            f"the archive's pickle has {blob.size} bytes; expected the structure of a state dict; "
            "export the weights alone"
        )
    data = bytes(blob.read(0, blob.size))
    unpickler = _unpickler(data, blob, 0, persistent)
    result = unpickler.load()
    if unpickler.position != len(data):
        raise CheckpointError("the archive's pickle has bytes behind its end; the file is corrupt")
    return result


def read_legacy(file: BinaryIO, data, file_size: int):
    """The object of a file in the older format: magic, version, system, object and key pickles,
    then the storages.
    """
    blob, storages = Region(file, 0, file_size), {}

    def persistent(identifier) -> Storage:
        kind, storage_type, key, _, count = identifier[:5]
        if kind != "storage" or not isinstance(key, str):
            raise ValueError("persistent id")
        if key not in storages:
            storages[key] = Storage(STORAGES[storage_type.path], count)
        storage = storages[key].of_type(storage_type)
        view = identifier[5] if len(identifier) > 5 else None
        return (
            storage
            if view is None
            else Storage(storage.code, view[2], storage, view[1] * storage.itemsize)
        )

    def unpickle(position: int, resolver=None):
        unpickler = _unpickler(data, blob, position, resolver)
        return unpickler.load(), unpickler.position

    magic, position = unpickle(0)
    version, position = unpickle(position)
    system, position = unpickle(position)
    if magic != LEGACY_MAGIC or version != 1001 or not isinstance(system, dict):
        raise CheckpointError(
            "the file is of an unknown version of PyTorch's older format; load it in PyTorch and "
            "save it again"
        )
    if system.get("little_endian") is not True:
        raise CheckpointError(BIG_ENDIAN)
    result, position = unpickle(position, persistent)
    keys, position = unpickle(position)
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or sorted(keys) != sorted(storages)
    ):
        raise CheckpointError(
            "the list of storages does not go with the tensors; the file is corrupt"
        )
    for key in keys:
        count, storage = (
            int.from_bytes(data[position : position + 8], "little", signed=True),
            storages[key],
        )
        position += 8
        if count * storage.itemsize != storage.size or position + storage.size > file_size:
            raise CheckpointError(
                "a storage is incomplete; the file is truncated or corrupt, copy or download it "
                "again"
            )
        storage.blob = Region(file, position, storage.size)
        position += storage.size
    if position != file_size:
        raise CheckpointError(
            f"the file has {file_size - position} bytes behind its last storage; it is corrupt, "
            "copy or download it again"
        )
    return result


def _unpickler(data, blob, position: int, persistent) -> Unpickler:
    return Unpickler(data, blob, position, BUILDERS, MENTIONS, persistent)


def _tensor(
    storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None
) -> Tensor:
    return _marked(Tensor(storage, storage.dtype, size, stride, offset), metadata)


def _tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None) -> Tensor:
    code = DTYPES[dtype.path]
    return _marked(
        Tensor(storage, code if code == BFLOAT16 else dtype_of(code), size, stride, offset),
        metadata,
    )


def _marked(tensor: Tensor, metadata) -> Tensor:
    """The tensor with what PyTorch has put off doing to its values: a negation is done when it is
    read, anything else is refused.
    """
    pending = {key for key, value in (metadata or {}).items() if value}
    if pending - {"neg"}:
        raise CheckpointError(
            f"holds a tensor with a pending {'conjugation'}, which is not read; call "
            "x.resolve_conj() where the file was made and save again"
            if pending == {"conj"}
            else "holds a tensor with marks that are not known here "
            f"({', '.join(ascii(str(key)[:40]) for key in sorted(map(str, pending)))}); save "
            "x.clone() of it where the file was made"
        )
    tensor.negated = bool(pending)
    return tensor


def _parameter(data, *ignored) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("no tensor")
    return data


def _with_attributes(function, tensor_type, args, state) -> Tensor:
    return REBUILDERS[function.path](*args)


REBUILDERS: Dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
BUILDERS: Dict[str, Callable] = {
    **REBUILDERS,
    # A tensor with Python attributes: the tensor without them.
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    # Small values of hyper-parameters and optimiser states; what they describe is not built.
    "torch.Size": lambda items=(): tuple(items),
    "torch.device": lambda *args: None,
    "torch.serialization._get_layout": lambda name: None,
}
MENTIONS = (
    set(STORAGES)
    | set(DTYPES)
    | {
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "torch.strided",
        "torch.contiguous_format",
        "torch.channels_last",
        "torch.preserve_format",
    }
)
