"""Where the weights of the latent-diffusion branch are, and which network a weights file belongs
to.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np

from jseg.checkpoint import CheckpointError, load_config, opened_state
from jseg.formats import shards
from jseg.formats.reader import read_record
from jseg.ldm import presets

# release: fixed paths relative to the working directory, named nowhere in its documentation; here:
# the same places, before those that ship.
OFFICIAL_MODEL = Path("checkpoints/average-176k-266k.pkl")
OFFICIAL_AUTOENCODER = Path("checkpoints/autoencoder.pkl")
# Where converted and averaged weights are put, by the README's commands: the same names with any
# suffix that is read, or in parts.
SUFFIXES = (
    ".pkl",
    ".safetensors",
    ".npz",
    ".pth",
    ".pt",
    ".ckpt",
    ".safetensors.index.json",
    ".bin.index.json",
    "",
)
MODEL_STEMS, AUTOENCODER_STEMS = ("average-176k-266k", "unet"), ("autoencoder",)
SHIPPED = Path(__file__).resolve().parent.parent / "weights"
SHIPPED_MODEL, SHIPPED_AUTOENCODER = (
    SHIPPED / "unet.safetensors",
    SHIPPED / "autoencoder.safetensors",
)
_TABLES = {"UNetConfig": presets.UNETS, "AutoencoderConfig": presets.AUTOENCODERS}


def find_weights(
    model_path=None, ae_path=None, notes: Optional[List[str]] = None
) -> Tuple[Path, Path]:
    """(UNet file, autoencoder file): those given, else the official ones under ./checkpoints, else
    the small ones that ship.

    An autoencoder that is not given is the one that the UNet was trained with, where its file says
    which. What the user should be told is appended to `notes`. Raises FileNotFoundError or
    CheckpointError in one line.
    """
    model = _existing(model_path, "--model_path") if model_path else _placed(MODEL_STEMS, notes)
    candidates = _candidates(AUTOENCODER_STEMS)
    if model is None and (ae_path or candidates):
        raise FileNotFoundError(
            f"an autoencoder ({ae_path or candidates[0]}), but no UNet: {_PLACES}"
        )
    if model is None:
        _tell(
            notes,
            f"no weights given and none under ./{OFFICIAL_MODEL.parent}: using the small ones "
            "that ship with jseg, trained on procedural landscapes of 128x96",
        )
        return SHIPPED_MODEL, SHIPPED_AUTOENCODER
    trained_with = autoencoder_of(model)
    if ae_path:
        autoencoder = _existing(ae_path, "--ae_path")
        if trained_with and encoder_digest(autoencoder) != trained_with:
            _tell(
                notes,
                f"warning: {model} was trained on latents of another autoencoder (digest "
                f"{trained_with[:12]}...) than {autoencoder}; expect wrong images",
            )
        return model, autoencoder
    if trained_with:
        for path in [*candidates, SHIPPED_AUTOENCODER]:
            if encoder_digest(path) == trained_with:
                if candidates and path != OFFICIAL_AUTOENCODER:
                    _tell(notes, f"{path} is taken: the autoencoder that {model} was trained with")
                return model, path
        raise FileNotFoundError(
            f"{model} was trained with an autoencoder (digest {trained_with[:12]}...) that is "
            "neither the official nor the shipped one; give it as --ae_path"
        )
    if not candidates:
        raise FileNotFoundError(f"a UNet ({model}), but no autoencoder: {_PLACES}")
    return model, _placed(AUTOENCODER_STEMS, notes)


def find_autoencoder(ae_path=None, preset: str = "", notes: Optional[List[str]] = None) -> Path:
    """The autoencoder to train with: the one given, else the official one under ./checkpoints, else
    the small one that ships.

    The last is refused for the preset "release": days of training on latents of drawings. Raises
    FileNotFoundError or CheckpointError in one line.
    """
    if ae_path:
        return _existing(ae_path, "--ae_path")
    official = _placed(AUTOENCODER_STEMS, notes)
    if official is None and preset == "release":
        raise FileNotFoundError(
            f"--preset release is trained on the latents of the official autoencoder, and there is none under "
            f'./{OFFICIAL_AUTOENCODER.parent}: put it at ./{OFFICIAL_AUTOENCODER} (README, "Weights") or name one '
            f"with --ae_path; the small one that ships with jseg knows drawings of 128x96 only, it is "
            f"{SHIPPED_AUTOENCODER}"
        )
    return official or SHIPPED_AUTOENCODER


def autoencoder_line(path) -> str:
    """What a training says first: the file of its autoencoder, whose latents these are, and whether
    it is the small one that ships.
    """
    shipped = (
        Path(path).exists()
        and SHIPPED_AUTOENCODER.exists()
        and Path(path).samefile(SHIPPED_AUTOENCODER)
    )
    return (
        f"autoencoder {path}{' (the small one that ships with jseg)' if shipped else ''}, digest "
        f"{encoder_digest(path)[:12]}..."
    )


def encoder_digest(ae_path) -> str:
    """SHA-256 of what makes an autoencoder's latents: its encoder's and quant_conv's values as
    float32, by name, in any kind of file.

    Two autoencoders with the same digest give the same latents; only their decoders and codebooks
    may differ.
    """
    digest = hashlib.sha256()
    with opened_state(ae_path) as selection:
        for name in sorted(selection.tensors):
            if name.startswith(("encoder.", "quant_conv.")):
                digest.update(
                    name.encode() + np.asarray(selection.tensors[name].read(), "<f4").tobytes()
                )
    return digest.hexdigest()


def autoencoder_of(model_path) -> str:
    """`encoder_digest` of the autoencoder that a UNet of ours was trained with; "" where the file
    does not say.
    """
    settings = (read_record(model_path) or {}).get("extra", {}).get("settings", {})
    return str(settings.get("autoencoder", "")) if isinstance(settings, dict) else ""


def expected_networks(model_path=None, ae_path=None):
    """(UNetConfig, AutoencoderConfig) that the files seem to hold, the release's where a file is
    missing or unreadable.

    For checking inputs before the weights; `network_config` is the strict one.
    """
    try:
        model_path, ae_path = find_weights(model_path, ae_path)
    except (OSError, CheckpointError):
        pass
    configs = []
    for path, kind in ((model_path, "UNetConfig"), (ae_path, "AutoencoderConfig")):
        try:
            configs.append(network_config(path or "", kind))
        except (OSError, CheckpointError):
            configs.append(_TABLES[kind]["release"])
    return tuple(configs)


def network_config(path, kind: str):
    """The configuration in a weights file, a dataclass of that name in `presets`; for files without
    one the release's.

    Raises CheckpointError if the file holds another kind of network.
    """
    config = load_config(path)
    if config is None:
        return _TABLES[kind]["release"]
    if type(config).__name__ != kind:
        raise CheckpointError(
            f"{path} holds weights of a network described by {type(config).__name__}; expected "
            f"{kind}; are --model_path and --ae_path swapped?"
        )
    return config


_PLACES = (
    f'put the official weights (README, "Weights") at ./{OFFICIAL_MODEL} and ./{OFFICIAL_AUTOENCODER}, '
    f"or name both files with --model_path and --ae_path"
)


def _existing(path, option: str) -> Path:
    if not Path(path).exists():
        raise FileNotFoundError(f"{option} {path} does not exist; {_PLACES}")
    try:
        if shards.parts(path) is None and not Path(path).is_file():
            raise FileNotFoundError(f"{option} {path} is not a file; {_PLACES}")
    except CheckpointError as error:
        raise FileNotFoundError(
            f"{option} {str(error).replace(f'{path}: ', f'{path} ', 1)}; {_PLACES}"
        ) from None
    return Path(path)


def _candidates(stems: Tuple[str, ...]) -> List[Path]:
    """The files under ./checkpoints that have one of the names, with any suffix that is read; the
    documented one first.
    """
    places = [OFFICIAL_MODEL.parent / (stem + suffix) for stem in stems for suffix in SUFFIXES]
    return [
        path
        for path in places
        if path.is_file() or path.suffix == "" and path.is_dir() and _in_parts(path)
    ]


def _in_parts(folder: Path) -> bool:
    try:
        return shards.parts(folder) is not None
    except CheckpointError:
        return False


def _placed(stems: Tuple[str, ...], notes: Optional[List[str]]) -> Optional[Path]:
    """The first of the candidates; where there are others, or it has not the documented name, that
    is told.
    """
    found = _candidates(stems)
    if len(found) > 1:
        _tell(
            notes,
            f"{len(found)} files for one network: {found[0]} is taken, "
            f"{', '.join(map(str, found[1:]))} not",
        )
    elif found and found[0] not in (OFFICIAL_MODEL, OFFICIAL_AUTOENCODER):
        _tell(notes, f"{found[0]} is taken")
    return found[0] if found else None


def _tell(notes: Optional[List[str]], line: str) -> None:
    if notes is not None:
        notes.append(line)
