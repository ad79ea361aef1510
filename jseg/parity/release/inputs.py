"""The inputs of both sides of a comparison, written by the process that starts them, and the form
of their results.

Everything lies in one folder: setting.json, inputs.npz, weights/ for stand-in weights and two files
for the merge. jseg.landscapes.draw draws images and label map, noise comes from jseg.noise, so that
the folder is the same on every machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Mapping, Tuple

import numpy as np

from jseg import checkpoint
from jseg.configs import AutoencoderConfig, UNetConfig, looks_like
from jseg.files import PathLike, write_atomic
from jseg.formats.mismatch import mismatch
from jseg.formats.tensor import CheckpointError
from jseg.images import resize_label, to_signed
from jseg.landscapes.draw import REFERENCE_SEEDS, landscape
from jseg.ldm.presets import AUTOENCODERS, PIPELINES, UNETS
from jseg.ldm.state_dict import autoencoder_shapes, unet_shapes
from jseg.noise import normal
from jseg.parity import stand_in

SEED, STEM = 0, "comparison"
SCENE = 3  # of jseg.landscapes.draw
TIMESTEP = 600  # of the one UNet pass
# Not 0: there, vb is the logarithm of a difference of nearly equal numbers on either side.
TRAINING_TIMESTEPS = (640, 300)
MERGED = ("first.pkl", "second.pkl")
# Training examples and repetitions of what is timed; a release-size pass takes too long for more.
SIZES = {"small": (2, 2), "release": (1, 1)}
# What the release's code has as constants: a network with other values cannot be built by it.
CONSTANTS = {
    "unet": {"spade_channels": 128, "groups": 32, "latent_channels": 3, "dropout": 0.0},
    "autoencoder": {"groups": 32, "picture_channels": 3, "latent_channels": 3},
}


@dataclass(frozen=True)
class Setting:
    """All that a side needs beside the arrays."""

    official: str  # folder of the release
    unet: UNetConfig
    autoencoder: AutoencoderConfig
    unet_weights: str  # files
    autoencoder_weights: str
    stage: int  # which of the release's stages is run whole
    examples: int  # of the training loss
    repetitions: int  # of what is timed; the best counts
    device: str

    @property
    def image_size(self) -> Tuple[int, int]:
        """(width, height) of the images."""
        factor = self.autoencoder.downsampling
        return self.unet.width * factor, self.unet.height * factor


def check_buildable(unet: UNetConfig, autoencoder: AutoencoderConfig) -> None:
    """Raise ValueError unless the release's code can build both networks."""
    for name, config in (("unet", unet), ("autoencoder", autoencoder)):
        for field, value in CONSTANTS[name].items():
            if getattr(config, field) != value:
                raise ValueError(
                    f"the {name}'s weights are of a network with {field} "
                    f"{getattr(config, field)}; the release's code knows {value} only; give "
                    "weights of its layout, or none"
                )
    odd = [ds for ds in unet.attention_downsampling if unet.width % ds]
    if odd:
        raise ValueError(
            f"the unet attends at downsampling {odd}, which does not divide its width "
            f"{unet.width}; the release's code has no setting for that; give weights of its "
            "layout, or none"
        )


def check_weights(path: PathLike, shapes: Mapping[str, Tuple[int, ...]]) -> None:
    """Raise CheckpointError unless the file holds arrays of these names and shapes."""
    with checkpoint.open_state(path) as selection:
        stored = {name: tensor.shape for name, tensor in selection.tensors.items()}
        problem = mismatch(shapes, stored, looks_like=looks_like)
    if problem:
        raise CheckpointError.at(path, problem)


def write(folder: Path, setting: Setting) -> Dict[str, np.ndarray]:
    """Write the setting and the arrays into the folder; the arrays."""
    arrays = draw(setting)
    write_atomic(folder / "inputs.npz", lambda file: np.savez(file, **arrays))
    text = json.dumps(dataclasses.asdict(setting), indent=1)
    write_atomic(folder / "setting.json", lambda file: file.write(text.encode()))
    return arrays


def read(folder: Path) -> Tuple[Setting, Dict[str, np.ndarray]]:
    """What `write` has written."""
    values = json.loads((folder / "setting.json").read_text(encoding="utf-8"))
    for name, kind in (("unet", UNetConfig), ("autoencoder", AutoencoderConfig)):
        fields = values[name].items()
        values[name] = kind(**{f: tuple(v) if isinstance(v, list) else v for f, v in fields})
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        return Setting(**values), dict(arrays)


def draw(setting: Setting) -> Dict[str, np.ndarray]:
    """The arrays: images uint8 [H, W, 3], label maps uint8 [n, h, w], latents and noise float32
    [n, 3, h, w].

    `reference` lends its colours, and as `image`, float32 [1, 3, H, W] in [-1, 1], it is encoded;
    `source` receives the colours, as the image of a stage before would; `flat` has one colour.
    """
    width, height = setting.unet.width, setting.unet.height
    reference, _ = landscape(REFERENCE_SEEDS + SCENE, *setting.image_size)
    source, label = landscape(SCENE, *setting.image_size)
    label = resize_label(label, width, height) % setting.unet.classes
    arrays = {
        "reference": reference,
        "image": to_signed(reference)[None],
        "source": source,
        "flat": np.full_like(source, (90, 120, 60)),
        "label": label[None],
        "labels": np.stack([label, label[:, ::-1]])[: setting.examples],
    }

    # Each draw has a name, so that another one changes none of these.
    shape, batch = (1, 3, height, width), (setting.examples, 3, height, width)
    for name in ("latent", "x"):
        arrays[name] = normal(SEED, STEM, name, shape)
    for number in range(len(PIPELINES["release"].stages)):
        arrays[f"noise.{number}"] = normal(SEED, STEM, number, shape)
    for name in ("train.z", "train.noise"):
        arrays[name] = normal(SEED, STEM, name, batch)
    return arrays


def result_paths(folder: Path, part: str, side: str) -> Tuple[Path, Path]:
    """(arrays, record) that a part's process leaves."""
    name = f"{part}-{side}"
    return folder / "parts" / (name + ".safetensors"), folder / "parts" / (name + ".json")


class _Drawn:
    """A weight of the recipe, made when it is written."""

    def __init__(self, name: str, shape: Tuple[int, ...]):
        self.name, self.shape = name, tuple(shape)

    def numpy(self) -> np.ndarray:
        return stand_in.value(self.name, self.shape)


def stand_in_weights(folder: Path, size: str) -> Tuple[Path, Path]:
    """Files of both networks under the recipe's weights, made where they are missing."""
    networks = {
        "unet": (UNETS[size], unet_shapes(UNETS[size])),
        "autoencoder": (AUTOENCODERS[size], autoencoder_shapes(AUTOENCODERS[size])),
    }
    paths = []
    for name, (config, shapes) in networks.items():
        path = folder / "weights" / f"{name}-{size}.safetensors"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.save(
                path, {key: _Drawn(key, shape) for key, shape in shapes.items()}, config
            )
        paths.append(path)
    return paths[0], paths[1]


def write_merge(folder: Path, setting: Setting) -> None:
    """Write the two files that are merged, as the release reads them: the autoencoder's weights and
    others of the same shapes.
    """
    first = checkpoint.load(setting.autoencoder_weights)
    checkpoint.save(folder / MERGED[0], first)
    second = {name: stand_in.value("second." + name, array.shape) for name, array in first.items()}
    checkpoint.save(folder / MERGED[1], second)


def digest(*parts: object) -> str:
    """SHA-256 of files and folders of Python sources (Path), arrays by name (dict), and texts."""
    sha256 = hashlib.sha256()
    for part in parts:
        for piece in _pieces(part):
            sha256.update(f"{len(piece)}:".encode() + piece)
    return sha256.hexdigest()


def _pieces(part: object) -> Iterable[bytes]:
    if isinstance(part, Path) and part.is_dir():
        for path in sorted(part.rglob("*.py")):
            yield path.relative_to(part).as_posix().encode()
            yield path.read_bytes()
    elif isinstance(part, Path):
        yield checkpoint.weights_sha256(part).encode()
    elif isinstance(part, Mapping):
        for name, array in part.items():
            yield f"{name} {array.dtype} {array.shape}".encode()
            yield np.ascontiguousarray(array).tobytes()
    else:
        yield str(part).encode()


def layout_rows(
    unet: Mapping[str, object], autoencoder: Mapping[str, object]
) -> Dict[str, np.ndarray]:
    """The rows of part `layout` from two state dicts: names with shapes as text in bytes, and which
    of the UNet's tensors are zero.
    """
    rows = {}
    for network, state in (("unet", unet), ("autoencoder", autoencoder)):
        lines = [f"{name} {list(value.shape)}" for name, value in sorted(state.items())]
        rows[network] = np.frombuffer("\n".join(lines).encode(), np.uint8)
    rows["zero"] = np.array([not value.numpy().any() for _, value in sorted(unet.items())])
    return rows
