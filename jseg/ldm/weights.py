"""Where the weights of the latent-diffusion branch are, and which network a weights file belongs to."""
from __future__ import annotations

from pathlib import Path
from typing import Tuple

from jseg.checkpoint import CheckpointError, load_config
from jseg.ldm import presets

# release: fixed paths relative to the working directory, named nowhere in its documentation; here: the same places, searched last.
OFFICIAL_MODEL = Path("checkpoints/average-176k-266k.pkl")
OFFICIAL_AUTOENCODER = Path("checkpoints/autoencoder.pkl")
_TABLES = {"UNetConfig": presets.UNETS, "AutoencoderConfig": presets.AUTOENCODERS}


def find_weights(model_path=None, ae_path=None) -> Tuple[Path, Path]:
    """(UNet file, autoencoder file): those given, else the official files under ./checkpoints.

    Raises FileNotFoundError in one line that says where the official weights are to be put.
    """
    found = []
    for given, option, official, what in ((model_path, "--model_path", OFFICIAL_MODEL, "UNet"),
                                          (ae_path, "--ae_path", OFFICIAL_AUTOENCODER, "autoencoder")):
        path = Path(given) if given else official
        if not path.is_file():
            absent = f"no weights of the {what}: {option} is not given and ./{official} does not exist"
            wanted = f"{option} {path} {'is a folder' if path.is_dir() else 'does not exist'}" if given else absent
            raise FileNotFoundError(f"{wanted}; put the official weights (README, \"Weights\") at ./{OFFICIAL_MODEL} and "
                                    f"./{OFFICIAL_AUTOENCODER}, or name your files with --model_path and --ae_path")
        found.append(path)
    return found[0], found[1]


def expected_networks(model_path=None, ae_path=None):
    """(UNetConfig, AutoencoderConfig) that the files seem to hold, the release's where a file is missing or unreadable.

    For checking inputs before the weights; `network_config` is the strict one.
    """
    configs = []
    for path, kind, official in ((model_path, "UNetConfig", OFFICIAL_MODEL), (ae_path, "AutoencoderConfig", OFFICIAL_AUTOENCODER)):
        try:
            configs.append(network_config(path or official, kind))
        except (OSError, CheckpointError):
            configs.append(_TABLES[kind]["release"])
    return tuple(configs)


def network_config(path, kind: str):
    """The configuration in a weights file, a dataclass of that name in `presets`; for files without one the release's.

    Raises CheckpointError if the file holds another kind of network.
    """
    config = load_config(path)
    if config is None:
        return _TABLES[kind]["release"]
    if type(config).__name__ != kind:
        raise CheckpointError(f"{path} holds weights of a network described by {type(config).__name__}; expected {kind}; "
                              f"are --model_path and --ae_path swapped?")
    return config
