"""PyTorch's files without PyTorch: the zip format (since 1.6) and the older stream of pickles.

Both are a pickle whose tensors are views (offset, size, stride) of storages; the storages are
entries of the archive, or follow the pickle. Layouts as written by torch.save; see
torch/serialization.py and torch/_utils.py for the names.
"""

from __future__ import annotations

from typing import BinaryIO, Callable, Dict, List, Optional

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
OTHER_STORAGES = "the list of storages does not go with the tensors; the file is corrupt"

_CODES = {"Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": BFLOAT16, "Bool": "b1"}
_CODES.update({"Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1"})
# Storage classes name the element type; the cuda ones are those of files saved from a GPU.
STORAGES = {
    f"torch.{place}{name}Storage": code for name, code in _CODES.items() for place in ("", "cuda.")
}
for _name in ("UntypedStorage", "storage.UntypedStorage", "storage._UntypedStorage"):
    STORAGES[f"torch.{_name}"] = "u1"
DTYPES = {"torch.bfloat16": BFLOAT16, "torch.bool": "b1"}
for _bits in (8, 16, 32, 64):
    DTYPES.update({f"torch.int{_bits}": f"i{_bits // 8}", f"torch.uint{_bits}": f"u{_bits // 8}"})
    DTYPES.update({f"torch.float{_bits}": f"f{_bits // 8}"} if _bits > 8 else {})


class Storage:
    """A blob of `count` elements of one type.

    Its bytes are in `blob`, which is filled in once their place is known, or in `owner`, from byte
    `start` on.
    """

    def __init__(self, code: str, count: int, owner: Optional["Storage"] = None, start: int = 0):
        self.code = code
        self.dtype = code if code == BFLOAT16 else dtype_of(code)
        self.itemsize = 2 if code == BFLOAT16 else self.dtype.itemsize
        count, self.start = checked_sizes((count, start))
        self.size = count * self.itemsize
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
        if code == self.code:
            return self
        return Storage(code, self.size // Storage(code, 0).itemsize, self)


def read_zip(archive: Archive, prefix: str):
    """The object of a zip-format file whose entries lie under `prefix`, such as "archive/"."""
    byte_order = prefix + "byteorder"
    if byte_order in archive.names() and bytes(archive.blob(byte_order).read(0, 3)) == b"big":
        raise CheckpointError(BIG_ENDIAN)

    # A persistent id names an entry that holds a storage.
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
    """The object of a file in the older format.

    Pickles of a magic number, the version, the system, the object and the storages' keys follow
    each other, then the storages.
    """
    blob, storages = Region(file, 0, file_size), {}

    def persistent(identifier) -> Storage:
        """A storage, or the part of one that a view sees."""
        kind, storage_type, key, _, count = identifier[:5]
        if kind != "storage" or not isinstance(key, str):
            raise ValueError("persistent id")
        if key not in storages:
            storages[key] = Storage(STORAGES[storage_type.path], count)
        storage = storages[key].of_type(storage_type)
        view = identifier[5] if len(identifier) > 5 else None
        if view is None:
            return storage
        return Storage(storage.code, view[2], storage, view[1] * storage.itemsize)

    def unpickle(position: int, resolver=None):
        unpickler = _unpickler(data, blob, position, resolver)
        return unpickler.load(), unpickler.position

    # What the file says of itself.
    magic, position = unpickle(0)
    version, position = unpickle(position)
    system, position = unpickle(position)
    _check_version(magic, version, system)

    # The object; its storages are found once all of them are known.
    result, position = unpickle(position, persistent)
    keys, position = unpickle(position)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(OTHER_STORAGES)
    if sorted(keys) != sorted(storages):
        raise CheckpointError(OTHER_STORAGES)
    end = _place(file, data, position, [storages[key] for key in keys])
    if end != file_size:
        raise CheckpointError(
            f"the file has {file_size - end} bytes behind its last storage; it is corrupt, copy or "
            "download it again"
        )
    return result


def _check_version(magic, version, system) -> None:
    """Raise CheckpointError unless the older format is the one that is read here."""
    if magic != LEGACY_MAGIC or version != 1001 or not isinstance(system, dict):
        raise CheckpointError(
            "the file is of an unknown version of PyTorch's older format; load it in PyTorch and "
            "save it again"
        )
    if system.get("little_endian") is not True:
        raise CheckpointError(BIG_ENDIAN)


def _place(file: BinaryIO, data, position: int, storages: List[Storage]) -> int:
    """Find the storages' bytes, each behind its number of elements; returns where they end."""
    for storage in storages:
        count = int.from_bytes(data[position : position + 8], "little", signed=True)
        position += 8
        if count * storage.itemsize != storage.size or position + storage.size > len(data):
            raise CheckpointError(
                "a storage is incomplete; the file is truncated or corrupt, copy or download it "
                "again"
            )
        storage.blob = Region(file, position, storage.size)
        position += storage.size
    return position


def _unpickler(data, blob, position: int, persistent) -> Unpickler:
    return Unpickler(data, blob, position, BUILDERS, MENTIONS, persistent)


def _tensor(
    storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None
) -> Tensor:
    return _marked(Tensor(storage, storage.dtype, size, stride, offset), metadata)


def _tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None) -> Tensor:
    code = DTYPES[dtype.path]
    stored = code if code == BFLOAT16 else dtype_of(code)
    return _marked(Tensor(storage, stored, size, stride, offset), metadata)


def _marked(tensor: Tensor, metadata) -> Tensor:
    """The tensor with what PyTorch has put off doing to its values.

    A negation is done when the tensor is read, anything else is refused.
    """
    pending = {key for key, value in (metadata or {}).items() if value}
    if pending == {"conj"}:
        raise CheckpointError(
            "holds a tensor with a pending conjugation, which is not read; call x.resolve_conj() "
            "where the file was made and save again"
        )
    if pending - {"neg"}:
        names = ", ".join(ascii(str(key)[:40]) for key in sorted(map(str, pending)))
        raise CheckpointError(
            f"holds a tensor with marks that are not known here ({names}); save x.clone() of it "
            "where the file was made"
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
MENTIONS = {*STORAGES, *DTYPES, "torch.Tensor", "torch.nn.parameter.Parameter", "torch.strided"}
MENTIONS |= {"torch.contiguous_format", "torch.channels_last", "torch.preserve_format"}
