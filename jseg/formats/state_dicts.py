"""One model's weights out of a nested file: under which entries and names programs store them.

Entries (state_dict, model, ema, ...), wrappers' prefixes (module., _orig_mod., model.) and moving
averages beside the weights: latent-diffusion's model_ema. (dots taken out of the names), ema.,
ema_model.; PixNerd's denoiser. and ema_denoiser.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, Iterable, Optional, Tuple

from jseg.formats.tensor import CheckpointError, Tensor

Arrays = Dict[str, Tensor]

MODEL_ENTRIES = ("state_dict", "model_state_dict", "model", "module", "net", "network")
MODEL_ENTRIES += ("params", "weights", "generator")
EMA_ENTRIES = ("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema")
EMA_ENTRIES += ("model_ema_state_dict", "ema_model_state_dict", "params_ema", "ema_params")
EMA_ENTRIES += ("g_ema", "generator_ema", "shadow")
WRAPPERS = ("module.", "_orig_mod.", "model.", "online_model.", "net.", "network.")
WRAPPERS += ("_forward_module.",)
# Wrappers that may stand anywhere in a name: torch.compile's, and those of sharded and checkpointed
# modules.
INNER_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# What torch's AveragedModel keeps beside the network, which it has under `module.`.
AVERAGED_MODEL, AVERAGES_TAKEN = "module.", "n_averaged"
# latent-diffusion nests averaging models; the other forms count at the start only, where they
# cannot be a quantiser's own state.
EMA_NAME = re.compile(
    r"^(?P<scope>(?:\w+\.)*?)"
    r"(?P<mark>model_ema\.|(?:^ema_model\.)|(?:^ema\.)|(?:^ema_))(?P<rest>.+)$"
)
# Parts of PixNerd's Lightning module: the network, its moving average, and what else may stand
# beside them.
DENOISER, EMA_DENOISER = "denoiser.", "ema_denoiser."
BESIDE_DENOISER = ("diffusion_trainer.", "diffusion_sampler.", "conditioner.", "vae.")
BOOKKEEPING = {"decay", "num_updates", "initted", "step", AVERAGES_TAKEN}
CHOICES = ("ema", "model")


@dataclass
class Selection:
    """One model's arrays, and whether they are a moving average; the rest is counted by group."""

    tensors: Arrays
    averaged: bool = False
    dropped: Counter = field(default_factory=Counter)


def select(tree: object, weights: str) -> Selection:
    """The weights in a file of another program; "ema" takes the moving average where there is one.

    Raises CheckpointError when there are none or it is not clear which; ValueError for another
    `weights`.
    """
    if weights not in CHOICES:
        raise ValueError(f"weights is {weights!r}; expected 'ema' or 'model'")
    state, averaged = _state(tree, weights)
    dropped: Counter = Counter()
    if _is_averaged_model(state):
        del state[AVERAGES_TAKEN]
        averaged, dropped[AVERAGES_TAKEN] = True, 1

    # The model and its moving average, each under the model's names.
    state = _unwrapped(state)
    model, ema, others = _denoiser(state) if _is_pixnerd(state) else _split(state)
    dropped.update(others)
    if ema and weights == "ema":
        model, averaged = {**model, **ema}, True
    elif ema:
        dropped["moving averages"] += len(ema)
    if not model:
        raise CheckpointError(
            "holds only moving averages; expected the model itself; ask for weights='ema'"
        )
    return Selection(_unwrapped(model), averaged, dropped)


def _state(tree: object, weights: str) -> Tuple[Arrays, bool]:
    """The flat state in a nested file, and whether it is an entry of moving averages."""
    if not isinstance(tree, dict):
        what = "single array" if isinstance(tree, Tensor) else "sequence or single value"
        raise CheckpointError(f"holds a {what}; expected a dictionary of arrays by name")

    # A known entry, or the arrays themselves.
    if weights == "ema":
        for key in EMA_ENTRIES:
            state = _arrays_below(tree.get(key))
            if state:
                return state, True
    for key in MODEL_ENTRIES:
        state = _arrays_below(tree.get(key))
        if state:
            return state, False
    state = _arrays(tree)
    if state:
        return state, False

    # The only entry with arrays, whatever it is called.
    states = {str(key): _arrays_below(value) for key, value in tree.items()}
    states = {key: state for key, state in states.items() if state}
    if len(states) == 1:
        key, state = states.popitem()
        return state, key in EMA_ENTRIES
    if states:
        names = ", ".join(sorted(states)[:5])
        raise CheckpointError(
            f"holds several sets of arrays ({names}); expected one, or entries named state_dict, "
            "model or ema; export the one you want"
        )
    optimizer = {"param_groups", "state"} <= set(map(str, tree))
    what = "the state of an optimiser" if optimizer else "no arrays by name"
    entries = ", ".join(ascii(str(key)[:40]) for key in list(tree)[:5]) or "none"
    raise CheckpointError(f"holds {what} (entries: {entries}); expected a network's weights")


def _arrays(node: object) -> Arrays:
    if not isinstance(node, dict):
        return {}
    return {
        key: value
        for key, value in node.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }


def _arrays_below(node: object, depth: int = 2) -> Arrays:
    """The arrays of a dictionary, or of the known entries inside of it."""
    state = _arrays(node)
    if state or not depth or not isinstance(node, dict):
        return state
    for key in MODEL_ENTRIES + EMA_ENTRIES:
        state = _arrays_below(node.get(key), depth - 1)
        if state:
            return state
    return {}


def _is_averaged_model(state: Arrays) -> bool:
    others = [name for name in state if name != AVERAGES_TAKEN]
    return 0 < len(others) < len(state) and all(name.startswith(AVERAGED_MODEL) for name in others)


def _unwrapped(state: Arrays) -> Arrays:
    """The arrays under their names without wrappers' prefixes.

    Prefixes of compiled and sharded modules go wherever they stand, others where every name has
    them.
    """
    names = {name: INNER_WRAPPERS.sub("", name) for name in state}
    while names:
        for wrapper in WRAPPERS:
            if all(name.startswith(wrapper) and name != wrapper for name in names.values()):
                names = {old: name[len(wrapper) :] for old, name in names.items()}
                break
        else:
            break
    if len(set(names.values())) != len(names):
        raise CheckpointError(
            "holds two arrays under one name once wrappers' prefixes are taken off; export the "
            "weights alone"
        )
    return {names[name]: tensor for name, tensor in state.items()}


def _split(state: Arrays) -> Tuple[Arrays, Arrays, Counter]:
    """(model, moving averages under the model's names, what is left out).

    A name is that of an average only if the model has its counterpart.
    """
    matches = {name: EMA_NAME.match(name) for name in state}
    model = {name: tensor for name, tensor in state.items() if matches[name] is None}
    undotted = _undotted(model)
    ema, strays, dropped = {}, {}, Counter()
    for name, match in matches.items():
        if match is None:
            continue
        target = _counterpart(match, state[name], model, undotted)
        if target is None:
            strays[name] = match
        else:
            ema[target] = state[name]

    # A file of averages alone.
    if not model and strays and all(match["mark"] != "ema_" for match in strays.values()):
        alone = {
            match["scope"] + match["rest"]: state[name]
            for name, match in strays.items()
            if match["rest"] not in BOOKKEEPING
        }
        return {}, alone, dropped

    # Averages without a counterpart are left out beside others; else they are the model's own.
    for name, match in strays.items():
        if ema and (match["mark"] != "ema_" or match["rest"] in BOOKKEEPING):
            dropped[match["scope"] + match["mark"] + "*"] += 1
        else:
            model[name] = state[name]
    return model, ema, dropped


def _is_pixnerd(state: Arrays) -> bool:
    parts = (DENOISER, EMA_DENOISER)
    return any(name.startswith(parts) for name in state) and all(
        name.startswith(parts + BESIDE_DENOISER) for name in state
    )


def _denoiser(state: Arrays) -> Tuple[Arrays, Arrays, Counter]:
    """As `_split`, of a file of PixNerd's trainer."""
    model, ema = (
        {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
        for prefix in (DENOISER, EMA_DENOISER)
    )
    others = [name for name in state if not name.startswith((DENOISER, EMA_DENOISER))]
    return model, ema, Counter(name.split(".")[0] + ".*" for name in others)


def _undotted(names: Iterable[str]) -> Dict[str, str]:
    result: Dict[str, str] = {}
    for name in names:
        key = name.replace(".", "")
        # latent-diffusion cannot keep two parameters that differ by dots alone, so neither is an
        # average's counterpart.
        result[key] = name if key not in result else ""
    return result


def _counterpart(match, tensor: Tensor, model: Arrays, undotted: Dict[str, str]) -> Optional[str]:
    """The model's name of the array that an average is of, which has its shape; or None."""
    scope, rest = match["scope"], match["rest"]
    names = [scope + rest] + [scope + wrapper + rest for wrapper in WRAPPERS]
    # An AveragedModel beside its model has a wrapper of its own: ema_model.module.NAME beside NAME.
    if rest.startswith(AVERAGED_MODEL):
        bare = rest[len(AVERAGED_MODEL) :]
        names = [scope + rest] + [scope + wrapper + bare for wrapper in (*WRAPPERS, "")]
    for name in names:
        if name not in model and match["mark"] == "model_ema.":
            name = undotted.get(name.replace(".", ""), "")
        if name in model and model[name].shape == tensor.shape:
            return name
    return None
