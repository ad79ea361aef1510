"""Features of images on disk by the content of the image's file, so that a set is computed once,
and later only what is new in it.

FOLDER/KIND/<hash>.npz: "keys" (SHA-256 of the files, [n]) and "values" (float32 [n, d]); KIND names
network and weights. A file that is damaged counts as absent. Files are only ever added, under the
hash of their keys, so that several processes may share a folder.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Dict, Iterable, Sequence, Set

import numpy as np

from jseg.files import write_atomic


def default_folder() -> Path:
    """~/.cache/jseg/features, or below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jseg" / "features"


class FeatureStore:
    """FeatureStore(folder, kind): `missing(keys)`, `add(keys, values)`, `get(keys)`."""

    def __init__(self, folder, kind: str):
        self.folder = Path(folder) / kind
        self._values: Dict[str, np.ndarray] = {}
        self._read: Set[str] = set()

    def missing(self, keys: Iterable[str]) -> Set[str]:
        """Those of the keys that have no features yet."""
        missing = set(keys) - set(self._values)
        if missing and self.folder.is_dir():
            for path in sorted(self.folder.glob("*.npz")):
                if path.name not in self._read:
                    self._load(path, missing)
        return missing - set(self._values)

    def add(self, keys: Sequence[str], values: np.ndarray) -> None:
        """Add values [n, d], one row a key; they are on disk when this returns."""
        rows = np.asarray(values, np.float32)
        if rows.ndim != 2 or len(keys) != len(rows):
            raise ValueError(
                f"feature store: {len(keys)} keys, values of shape {rows.shape}; expected [n, d], "
                "one row a key"
            )
        name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:24] + ".npz"
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"keys": np.array(keys, "S64"), "values": rows}
        write_atomic(self.folder / name, lambda file: np.savez(file, **content))
        self._values.update(zip(keys, rows))

    def get(self, keys: Sequence[str]) -> np.ndarray:
        """float32 [n, d] of keys that are all there; raises KeyError."""
        if self.missing(keys):
            raise KeyError(f"no features of {len(self.missing(keys))} images")
        return np.stack([self._values[key] for key in keys])

    def _load(self, path: Path, missing: Set[str]) -> None:
        """Read a file that has one of the missing keys."""
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                keys = [key.decode("ascii") for key in arrays["keys"].tolist()]
                if not missing & set(keys):
                    return
                values = arrays["values"]
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile):
            return
        whole = values.ndim == 2 and len(values) == len(keys) and values.dtype == np.float32
        if whole and np.isfinite(values).all():
            self._read.add(path.name)
            self._values.update(zip(keys, values))
