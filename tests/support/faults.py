"""Faults for a sound folder: each function returns what does the fault to a folder that is given
later, so that a table can say in a line what is done.
"""

import os

import numpy as np
from PIL import Image


def moved(name, new):
    return lambda folder: (folder / name).rename(folder / new)


def removed(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def emptied(name):
    return lambda folder: [path.unlink() for path in (folder / name).iterdir()]


def new_folder(name):
    return lambda folder: (folder / name).mkdir()


def written(name, content):
    """A file of that text or of those bytes."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def drawn(name, array):
    """An image of those numbers."""
    return lambda folder: Image.fromarray(np.asarray(array)).save(folder / name)


def cut(name, size):
    """The first bytes of a file."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def dangling(name):
    """A link to nowhere in place of a file."""

    def fault(folder):
        (folder / name).unlink()
        os.symlink(str(folder / "nowhere"), str(folder / name))

    return fault


def all_of(*faults):
    return lambda folder: [fault(folder) for fault in faults]
