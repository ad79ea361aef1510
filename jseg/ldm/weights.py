"""Where the weights of IIDM are, and which network a weight file belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from jseg.checkpoint import CheckpointError, WeightFile, describe
from jseg.formats import shards
from jseg.ldm import presets

# release: fixed paths relative to the working directory, named nowhere in its documentation; here:
# the same places, before those that ship.
OFFICIAL_MODEL = Path("checkpoints/average-176k-266k.pkl")
OFFICIAL_AUTOENCODER = Path("checkpoints/autoencoder.pkl")
# The README's commands put converted and averaged weights there, too: the same names with any
# suffix that is read, or in parts.
SUFFIXES = (".pkl", ".safetensors", ".npz", ".pth", ".pt", ".ckpt")
SUFFIXES += (".safetensors.index.json", ".bin.index.json", "")
MODEL_STEMS = ("average-176k-266k", "unet")
AUTOENCODER_STEMS = ("autoencoder",)
SHIPPED = Path(__file__).resolve().parent.parent / "weights"
SHIPPED_MODEL = SHIPPED / "unet.safetensors"
SHIPPED_AUTOENCODER = SHIPPED / "autoencoder.safetensors"
ENCODER = ("encoder.", "quant_conv.")  # the arrays of an autoencoder that make its latents
PLACES = (
    f'put the official weights (README, "Weights") at ./{OFFICIAL_MODEL} and '
    f"./{OFFICIAL_AUTOENCODER}, or name both files with --model_path and --ae_path"
)
_TABLES = {"UNetConfig": presets.UNETS, "AutoencoderConfig": presets.AUTOENCODERS}


@dataclass(frozen=True)
class Weights:
    """The weight files of IIDM's two networks, and what a person should know about the choice."""

    model: WeightFile
    autoencoder: WeightFile
    remarks: List[str] = field(default_factory=list)

    def configs(self):
        """(UNetConfig, AutoencoderConfig); raises CheckpointError if a file holds another one."""
        return (
            network_config(self.model, "UNetConfig"),
            network_config(self.autoencoder, "AutoencoderConfig"),
        )


def find_weights(model_path=None, ae_path=None, sha256: bool = False) -> Weights:
    """The UNet and the autoencoder: those given, else the official ones, else those that ship.

    The official ones lie under ./checkpoints. An autoencoder that is not given is the one that the
    UNet was trained with, where its file says which. The digest of the autoencoder is known; with
    `sha256` that of both files, too. Raises FileNotFoundError or CheckpointError in one line.
    """
    candidates = _candidates(AUTOENCODER_STEMS)
    model, remarks = _given_or_placed(model_path, "--model_path", MODEL_STEMS, sha256)
    if model is None and (ae_path or candidates):
        raise FileNotFoundError(
            f"an autoencoder ({ae_path or candidates[0]}), but no UNet: {PLACES}"
        )
    if model is None:
        remark = (
            f"no weights given and none under ./{OFFICIAL_MODEL.parent}: using the small ones "
            "that ship with jseg, trained on procedural landscapes of 128x96"
        )
        model = describe(SHIPPED_MODEL, sha256)
        return Weights(model, describe(SHIPPED_AUTOENCODER, sha256, ENCODER), [remark])

    if ae_path:
        autoencoder, more = _given_autoencoder(model, ae_path, sha256)
    else:
        autoencoder, more = _autoencoder_for(model, candidates, sha256)
    return Weights(model, autoencoder, remarks + more)


def find_autoencoder(ae_path=None, preset: str = "") -> Tuple[WeightFile, List[str]]:
    """(the autoencoder to train with, remarks): the one given, else the official one, else ours.

    Ours is the small one that ships, which is refused for the preset "release": days of training on
    latents of drawings. Its digest is known. Raises FileNotFoundError or CheckpointError in one
    line.
    """
    autoencoder, remarks = _given_or_placed(
        ae_path, "--ae_path", AUTOENCODER_STEMS, prefixes=ENCODER
    )
    if autoencoder is not None:
        return autoencoder, remarks
    if preset == "release":
        raise FileNotFoundError(
            "--preset release is trained on the latents of the official autoencoder, and there is "
            f"none under ./{OFFICIAL_AUTOENCODER.parent}: put it at ./{OFFICIAL_AUTOENCODER} "
            '(README, "Weights") or name one with --ae_path; the small one that ships with jseg '
            f"knows drawings of 128x96 only, it is {SHIPPED_AUTOENCODER}"
        )
    return describe(SHIPPED_AUTOENCODER, prefixes=ENCODER), []


def autoencoder_line(path) -> str:
    """What a training says first: which autoencoder's latents these are, and whether it is ours."""
    autoencoder = describe(path, prefixes=ENCODER)
    shipped = SHIPPED_AUTOENCODER.exists() and autoencoder.path.samefile(SHIPPED_AUTOENCODER)
    ours = " (the small one that ships with jseg)" if shipped else ""
    return f"autoencoder {autoencoder}{ours}, digest {autoencoder.digest[:12]}..."


def encoder_digest(ae_path) -> str:
    """SHA-256 of what makes an autoencoder's latents: the values of its encoder and quant_conv.

    Taken as float32, by name, in any kind of file. Two autoencoders with the same digest give the
    same latents; only their decoders and codebooks may differ.
    """
    return describe(ae_path, prefixes=ENCODER).digest


def autoencoder_of(model_path) -> str:
    """`encoder_digest` of the autoencoder that a UNet was trained with; "" if its file has none."""
    return str(describe(model_path).settings.get("autoencoder", ""))


def expected_networks(model_path=None, ae_path=None):
    """(UNetConfig, AutoencoderConfig) that the files seem to hold, for checking inputs.

    The release's where a file is missing or unreadable: that is an error once the inputs are right
    (`Weights.configs`).
    """
    models, autoencoders = _candidates(MODEL_STEMS), _candidates(AUTOENCODER_STEMS)
    return (
        _expected(model_path or "".join(map(str, models[:1])), "UNetConfig"),
        _expected(ae_path or "".join(map(str, autoencoders[:1])), "AutoencoderConfig"),
    )


def network_config(path, kind: str):
    """The configuration in a weight file, a dataclass of that name in `jseg.configs`.

    The release's for files without one. Raises CheckpointError if the file holds another kind of
    network.
    """
    config = describe(path).config
    if config is None:
        return _TABLES[kind]["release"]
    if type(config).__name__ != kind:
        raise CheckpointError(
            f"{path} holds weights of a network described by {type(config).__name__}; expected "
            f"{kind}; are --model_path and --ae_path swapped?"
        )
    return config


def _expected(path, kind: str):
    try:
        return network_config(path, kind)
    except (OSError, CheckpointError):
        return _TABLES[kind]["release"]


def _given_or_placed(
    path, option: str, stems: Tuple[str, ...], sha256: bool = False, prefixes: Sequence[str] = ()
) -> Tuple[Optional[WeightFile], List[str]]:
    """(the file given, else the first under ./checkpoints, or None; remarks on the choice)."""
    if path:
        return _existing(path, option, sha256, prefixes), []
    candidates = _candidates(stems)
    if not candidates:
        return None, []
    return describe(candidates[0], sha256, prefixes), _choice_remarks(candidates)


def _existing(path, option: str, sha256: bool, prefixes: Sequence[str] = ()) -> WeightFile:
    if not Path(path).exists():
        raise FileNotFoundError(f"{option} {path} does not exist; {PLACES}")
    try:
        return describe(path, sha256, prefixes)
    except CheckpointError as error:
        problem = str(error).replace(f"{path}: ", "", 1)
        hint = f"; {PLACES}" if Path(path).is_dir() else ""
        raise CheckpointError.at(f"{option} {path}", problem + hint) from None


def _given_autoencoder(model: WeightFile, path, sha256: bool) -> Tuple[WeightFile, List[str]]:
    """(the autoencoder at `path`, a warning if it is not the one of the UNet's training)."""
    autoencoder, trained_with = _existing(path, "--ae_path", sha256, ENCODER), autoencoder_of(model)
    if trained_with in ("", autoencoder.digest):
        return autoencoder, []
    return autoencoder, [
        f"warning: {model} was trained on latents of another autoencoder (digest "
        f"{trained_with[:12]}...) than {autoencoder}; expect wrong images"
    ]


def _autoencoder_for(
    model: WeightFile, candidates: Sequence[Path], sha256: bool
) -> Tuple[WeightFile, List[str]]:
    """(the autoencoder of the UNet's training, else the official one; remarks on the choice)."""
    trained_with = autoencoder_of(model)
    if not trained_with:
        if not candidates:
            raise FileNotFoundError(f"a UNet ({model}), but no autoencoder: {PLACES}")
        return describe(candidates[0], sha256, ENCODER), _choice_remarks(candidates)
    autoencoder = _with_digest(trained_with, [*candidates, SHIPPED_AUTOENCODER], sha256)
    if autoencoder is None:
        raise FileNotFoundError(
            f"{model} was trained with an autoencoder (digest {trained_with[:12]}...) that is "
            "neither the official nor the shipped one; give it as --ae_path"
        )
    if not candidates or autoencoder.path == OFFICIAL_AUTOENCODER:
        return autoencoder, []
    return autoencoder, [f"{autoencoder} is taken: {model} was trained with this autoencoder"]


def _with_digest(digest: str, paths: Sequence[Path], sha256: bool) -> Optional[WeightFile]:
    """The first of the autoencoders whose latents have that digest."""
    for path in paths:
        autoencoder = describe(path, sha256, ENCODER)
        if autoencoder.digest == digest:
            return autoencoder
    return None


def _candidates(stems: Tuple[str, ...]) -> List[Path]:
    """The files under ./checkpoints with one of these names and any suffix, by preference."""
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


def _choice_remarks(candidates: Sequence[Path]) -> List[str]:
    """What to say where there are other candidates, or the first has not the official name."""
    first, *others = candidates
    if others:
        names = ", ".join(map(str, others))
        return [f"{len(candidates)} files for one network: {first} is taken, {names} not"]
    return [] if first in (OFFICIAL_MODEL, OFFICIAL_AUTOENCODER) else [f"{first} is taken"]
