"""Where training programs put the weights in their files, and under which names: one model's state
out of a nested file.

Entries (state_dict, model, ema, ...), wrappers' prefixes (module., _orig_mod., model.) and moving
averages kept beside the weights: latent-diffusion's model_ema. (dots stripped from the names),
ema., ema_model.; PixNerd's denoiser. and ema_denoiser.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, Iterable, Tuple

from jseg.formats.tensor import CheckpointError, Tensor

MODEL_ENTRIES = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "params",
    "weights",
    "generator",
)
EMA_ENTRIES = (
    "ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema_state_dict",
    "ema_model_state_dict",
    "params_ema",
    "ema_params",
    "g_ema",
    "generator_ema",
    "shadow",
)
WRAPPERS = (
    "module.",
    "_orig_mod.",
    "model.",
    "online_model.",
    "net.",
    "network.",
    "_forward_module.",
)
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
    r"^(?P<scope>(?:\w+\.)*?)(?P<mark>model_ema\.|(?:^ema_model\.)|(?:^ema\.)|(?:^ema_))(?P<rest>.+)$"
)
# Parts of PixNerd's Lightning module: the network, its moving average, and what else may stand
# beside them.
DENOISER, EMA_DENOISER, BESIDE_DENOISER = (
    "denoiser.",
    "ema_denoiser.",
    ("diffusion_trainer.", "diffusion_sampler.", "conditioner.", "vae."),
)
BOOKKEEPING = {"decay", "num_updates", "initted", "step", AVERAGES_TAKEN}
CHOICES = ("ema", "model")


@dataclass
class Selection:
    """One model's arrays; `averaged` when they are the moving average; what else there was, by
    group, in `dropped`.
    """

    tensors: Dict[str, Tensor]
    averaged: bool = False
    dropped: Counter = field(default_factory=Counter)


def select(tree: object, weights: str) -> Selection:
    """The weights of a file written by another program; `weights` "ema" takes the moving average
    where there is one.

    Raises CheckpointError when there are none or it is not clear which; ValueError for another
    `weights`.
    """
    if weights not in CHOICES:
        raise ValueError(f"weights is {weights!r}; expected 'ema' or 'model'")
    state, averaged = _state(tree, weights)
    dropped: Counter = Counter()
    if (
        AVERAGES_TAKEN in state
        and len(state) > 1
        and all(name == AVERAGES_TAKEN or name.startswith(AVERAGED_MODEL) for name in state)
    ):
        state = {name: tensor for name, tensor in state.items() if name != AVERAGES_TAKEN}
        averaged, dropped[AVERAGES_TAKEN] = True, 1
    state = _unwrapped(state)
    model, ema = (_denoiser if _is_pixnerd(state) else _split)(state, dropped)
    if ema and weights == "ema":
        model, averaged = {**model, **ema}, True
    elif ema:
        dropped["moving averages"] += len(ema)
    if not model:
        raise CheckpointError(
            "holds only moving averages; expected the model itself; ask for weights='ema'"
        )
    return Selection(_unwrapped(model), averaged, dropped)


def _state(tree: object, weights: str) -> Tuple[Dict[str, Tensor], bool]:
    """The flat state in a nested file, and whether it is an entry of moving averages."""
    if not isinstance(tree, dict):
        raise CheckpointError(
            "holds a "
            f"{'single array' if isinstance(tree, Tensor) else 'sequence or single value'}; "
            "expected a dictionary of arrays by name"
        )
    if weights == "ema":
        for key in EMA_ENTRIES:
            state = _arrays_below(tree.get(key))
            if state:
                return state, True
    flat = _arrays(tree)
    for key in MODEL_ENTRIES:
        state = _arrays_below(tree.get(key))
        if state:
            return state, False
    if flat:
        return flat, False
    found = {
        str(key): state
        for key, state in ((key, _arrays_below(value)) for key, value in tree.items())
        if state
    }
    if len(found) == 1:
        key, state = found.popitem()
        return state, key in EMA_ENTRIES
    if found:
        raise CheckpointError(
            f"holds several sets of arrays ({', '.join(sorted(found)[:5])}); expected one, or "
            "entries named state_dict, model or ema; export the one you want"
        )
    kind = (
        "the state of an optimiser"
        if {"param_groups", "state"} <= set(map(str, tree))
        else "no arrays by name"
    )
    raise CheckpointError(
        f"holds {kind} (entries: "
        f"{', '.join(ascii(str(key)[:40]) for key in list(tree)[:5]) or 'none'}); expected a "
        "network's weights"
    )


def _arrays(node: object) -> Dict[str, Tensor]:
    if not isinstance(node, dict):
        return {}
    return {
        key: value
        for key, value in node.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }


def _arrays_below(node: object, depth: int = 2) -> Dict[str, Tensor]:
    """The arrays of a dictionary, or of the known entries inside of it."""
    state = _arrays(node)
    if state or not depth or not isinstance(node, dict):
        return state
    for key in MODEL_ENTRIES + EMA_ENTRIES:
        state = _arrays_below(node.get(key), depth - 1)
        if state:
            return state
    return {}


def _unwrapped(state: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Names without the prefixes of wrappers: those of compiled and sharded modules anywhere, the
    others where every name has them.
    """
    names = {name: INNER_WRAPPERS.sub("", name) for name in state}
    stripping = True
    while stripping:
        stripping = False
        for wrapper in WRAPPERS:
            if names and all(
                name.startswith(wrapper) and name != wrapper for name in names.values()
            ):
                names = {old: name[len(wrapper) :] for old, name in names.items()}
                stripping = True
    if len(set(names.values())) != len(names):
        raise CheckpointError(
            "holds two arrays under one name once wrappers' prefixes are taken off; export the "
            "weights alone"
        )
    return {names[name]: tensor for name, tensor in state.items()}


def _split(
    state: Dict[str, Tensor], dropped: Counter
) -> Tuple[Dict[str, Tensor], Dict[str, Tensor]]:
    """(model, moving averages under the model's names); a name is one of an average only if the
    model has its counterpart.
    """
    matches = {name: EMA_NAME.match(name) for name in state}
    model = {name: tensor for name, tensor in state.items() if matches[name] is None}
    undotted = _undotted(model)
    ema, strays = {}, []
    for name, match in matches.items():
        if match is None:
            continue
        target = _counterpart(match, state[name], model, undotted)
        if target is not None:
            ema[target] = state[name]
        else:
            strays.append(name)
    if not model and strays and all(matches[name]["mark"] != "ema_" for name in strays):
        return {}, {
            matches[name]["scope"] + matches[name]["rest"]: state[name]
            for name in strays
            if matches[name]["rest"] not in BOOKKEEPING
        }
    for name in strays:
        if ema and (matches[name]["mark"] != "ema_" or matches[name]["rest"] in BOOKKEEPING):
            dropped[matches[name]["scope"] + matches[name]["mark"] + "*"] += 1
        else:
            model[name] = state[name]
    return model, ema


def _is_pixnerd(state: Dict[str, Tensor]) -> bool:
    parts = (DENOISER, EMA_DENOISER)
    return any(name.startswith(parts) for name in state) and all(
        name.startswith(parts + BESIDE_DENOISER) for name in state
    )


def _denoiser(
    state: Dict[str, Tensor], dropped: Counter
) -> Tuple[Dict[str, Tensor], Dict[str, Tensor]]:
    """(model, moving averages) of a file of PixNerd's trainer, without their prefixes."""
    parts = {
        prefix: {
            name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)
        }
        for prefix in (DENOISER, EMA_DENOISER)
    }
    dropped.update(
        name.split(".")[0] + ".*" for name in state if not name.startswith((DENOISER, EMA_DENOISER))
    )
    return parts[DENOISER], parts[EMA_DENOISER]


def _undotted(names: Iterable[str]) -> Dict[str, str]:
    result: Dict[str, str] = {}
    for name in names:
        key = name.replace(".", "")
        # latent-diffusion cannot keep two parameters that differ by dots alone, so neither is an
        # average's counterpart.
        result[key] = name if key not in result else ""
    return result


def _counterpart(match, tensor: Tensor, model: Dict[str, Tensor], undotted: Dict[str, str]):
    scope, rest = match["scope"], match["rest"]
    # An AveragedModel beside its model has a wrapper of its own: ema_model.module.NAME beside NAME.
    bare = rest[len(AVERAGED_MODEL) :] if rest.startswith(AVERAGED_MODEL) else rest
    for wrapper in ("",) + WRAPPERS + ((None,) if bare != rest else ()):
        name = scope + rest if wrapper == "" else scope + (wrapper or "") + bare
        if name not in model and match["mark"] == "model_ema.":
            name = undotted.get(name.replace(".", ""), "")
        if name in model and model[name].shape == tensor.shape:
            return name
    return None
