"""Gradient checkpointing: a block keeps its inputs only and is computed again in the backward pass,
with the same dropout masks.

The memory of a network's activations becomes that of its blocks' inputs and of one block (Chen et
al. 2016, "Training deep nets with sublinear memory cost"). Jittor has nothing of the kind; mirrors
CheckpointFunction of the release's guided_diffusion/nn.py.
"""

from __future__ import annotations

from jseg.nn.dropout import dropout_place, replayed_dropout
from jseg.nn.kernels import graph_used_once
from jseg.runtime import jt


def recompute(block, *inputs):
    """block(*inputs), whose intermediate results are dropped and computed again for the gradient.

    block: a module, or a method of the module that owns every parameter it uses; gives one Var.
    inputs: Vars and anything else. Gradients reach the inputs and the module's parameters, except
    those that need none. Under no_grad: a plain call. Neither gradients of gradients nor a second
    gradient of the same graph are supported. Raises TypeError for a function without a module,
    whose parameters would silently get no gradient.

    release: draws new dropout masks for the backward pass, and has the gradient of the one-hot maps
    computed; here: neither.
    """
    module = getattr(block, "__self__", block)
    if not isinstance(module, jt.nn.Module):
        raise TypeError(f"recompute: {block!r} is not a module or a method of one")
    if jt.flags.no_grad:
        return block(*inputs)
    parameters = [p for p in module.parameters() if not p.is_stop_grad()]
    return _Block(block, len(inputs), parameters)(*inputs, *parameters)


class _Block(jt.Function):
    """One call of a block; the parameters are inputs too, since gradients reach inputs only."""

    def __init__(self, block, count: int, parameters):
        self.block, self.count, self.weights = block, count, parameters

    def execute(self, *tensors):
        self.inputs, self.place = tensors[: self.count], dropout_place()
        with jt.no_grad():
            return self.block(*self.inputs)

    def grad(self, gradient):
        # Jittor frees this object only when the whole backward pass is done.
        saved, self.inputs = self.inputs, None
        if saved is None:
            raise RuntimeError(
                "recompute: a second gradient of the same graph; compute the loss again"
            )
        needs_gradient = [mask >= 0 for mask in self.input_mask]
        inputs = [
            v.detach().start_grad() if isinstance(v, jt.Var) and needs else v
            for v, needs in zip(saved, needs_gradient)
        ]
        variables = [v for v, needs in zip(inputs, needs_gradient) if needs]

        # The parameters stand in for themselves without their part in the surrounding graph, which
        # Jittor would walk for every block.
        aliases = [p.detach() for p in self.weights]
        with jt.enable_grad(), replayed_dropout(self.place), graph_used_once():
            _swap(self.weights, aliases)
            try:
                product = self.block(*inputs) * gradient
                gradients = jt.grad(product, variables + self.weights, retain_graph=False)
            finally:
                _swap(self.weights, aliases)

        remaining = iter(gradients)
        return tuple(next(remaining) if needs else None for needs in needs_gradient)


def _swap(ours, theirs) -> None:
    for a, b in zip(ours, theirs):
        a.swap(b)
