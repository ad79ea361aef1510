"""Features of images kept on disk by the content of the image's file, so that a set is computed
once, and only what is new in it.

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
        self._found: Dict[str, np.ndarray] = {}
        self._read: Set[str] = set()

    def missing(self, keys: Iterable[str]) -> Set[str]:
        """Those of the keys that have no features yet."""
        wanted = set(keys) - set(self._found)
        if wanted and self.folder.is_dir():
            for path in sorted(self.folder.glob("*.npz")):
                if path.name not in self._read:
                    self._load(path, wanted)
        return wanted - set(self._found)

    def add(self, keys: Sequence[str], values: np.ndarray) -> None:
        """Keep values [n, d], one row a key; on disk when this returns."""
        values = np.asarray(values, np.float32)
        if values.ndim != 2 or len(keys) != len(values):
            raise ValueError(
                f"feature store: {len(keys)} keys, values of shape {values.shape}; expected [n, "
                "d], one row a key"
            )
        name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:24] + ".npz"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(
            self.folder / name,
            lambda file: np.savez(file, keys=np.array(keys, "S64"), values=values),
        )
        self._found.update(zip(keys, values))

    def get(self, keys: Sequence[str]) -> np.ndarray:
        """float32 [n, d] of keys that are all there; raises KeyError."""
        if self.missing(keys):
            raise KeyError(f"no features of {len(self.missing(keys))} images")
        return np.stack([self._found[key] for key in keys])

    def _load(self, path: Path, wanted: Set[str]) -> None:
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                keys = [key.decode("ascii") for key in file["keys"].tolist()]
                if not wanted & set(keys):
                    return  # not read further: another set's
                values = file["values"]
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile):
            return
        if (
            values.ndim == 2
            and len(values) == len(keys)
            and values.dtype == np.float32
            and np.isfinite(values).all()
        ):
            self._read.add(path.name)
            self._found.update(zip(keys, values))
