import contextlib

import numpy as np
import pytest

from jseg.nn import dropout, layers
from jseg.nn import recompute as module
from jseg.nn.recompute import recompute
from jseg.runtime import jt

nn = jt.nn


class Block(nn.Module):
    """Takes a map, an embedding, a constant map and a number; counts its calls."""

    def __init__(self, p=0.0):
        self.norm, self.conv = layers.GroupNorm(4, 8), nn.Conv2d(8, 8, 3, padding=1)
        self.dropout, self.linear = layers.Dropout(p), nn.Linear(6, 8)
        self.calls = 0

    def execute(self, x, embedding, constant, factor):
        self.calls += 1
        h = layers.silu(
            self.norm(x) * constant + self.linear(embedding).reshape(x.shape[0], -1, 1, 1)
        )
        return x + self.dropout(self.conv(h)) * factor


class Network(nn.Module):
    def __init__(self, p=0.0):
        self.blocks = nn.ModuleList([Block(p) for _ in range(3)])

    def execute(self, x, embedding, constant, again):
        for block in self.blocks:
            x = (
                recompute(block, x, embedding, constant, 0.5)
                if again
                else block(x, embedding, constant, 0.5)
            )
        return (x * x).mean()


def inputs():
    rng = np.random.default_rng(0)
    x, embedding, constant = (
        jt.array(rng.standard_normal(shape).astype(np.float32))
        for shape in ((3, 8, 6, 7), (3, 6), (3, 8, 6, 7))
    )
    return x, embedding, constant.stop_grad()


def gradients(network, again, retain_graph=False):
    dropout.seed_dropout(1, 2, 3)
    x, embedding, constant = inputs()
    loss = network(x, embedding, constant, again)
    found = jt.grad(loss, [x, embedding] + network.parameters(), retain_graph=retain_graph)
    return [loss.numpy()] + [gradient.numpy() for gradient in found]


def worst(found, expected):
    assert len(found) == len(expected) and all(np.abs(b).max() > 1e-6 for b in expected)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, expected))


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_gradients_of_inputs_and_parameters_are_those_of_the_plain_run(p):
    network = Network(p)
    plain = gradients(network, again=False)
    again = gradients(network, again=True)
    assert worst(again, plain) < 2e-6
    assert all(np.array_equal(a, b) for a, b in zip(again, gradients(network, again=True)))


def test_the_release_draws_other_masks_in_the_backward_pass_ours_the_same(monkeypatch):
    network = Network(0.3)
    plain = gradients(network, again=False)
    # As the release: draws go on.
    monkeypatch.setattr(module, "replayed_dropout", lambda place: contextlib.nullcontext())
    assert worst(gradients(network, again=True), plain) > 0.01


def test_masks_after_the_backward_pass_go_on_where_they_were():
    network = Network(0.3)
    gradients(network, again=True)
    assert dropout.dropout_place() == (1, 2, 3, 3)


def test_a_block_runs_twice_and_only_what_needs_a_gradient_gets_one(monkeypatch):
    network, targets, real = Network(), [], jt.grad
    network.blocks[1].conv.bias.stop_grad()
    x, embedding, constant = inputs()
    monkeypatch.setattr(
        jt,
        "grad",
        lambda loss, found, **options: (targets.append(len(found)), real(loss, found, **options))[
            1
        ],
    )
    loss = network(x, embedding, constant, True)
    real(loss, network.blocks[0].conv.weight, retain_graph=False).sync()
    assert [block.calls for block in network.blocks] == [2, 2, 2]
    assert targets == [
        2 + 6,
        2 + 5,
        2 + 6,
    ]  # x, embedding and six parameters, one of them frozen; not the constant map
    assert network.blocks[1].conv.bias.is_stop_grad()
    assert not network.blocks[1].conv.weight.is_stop_grad()


def test_intermediate_results_are_not_kept():
    held = {}
    for again in (False, True):
        network = Network()
        jt.sync_all()
        before = jt.number_of_lived_vars()
        loss = network(*inputs(), again).sync()
        held[again] = jt.number_of_lived_vars() - before
        del loss
    assert 0 < held[True] < 0.5 * held[False]


def test_without_gradients_it_is_a_plain_call():
    network = Network()
    with jt.no_grad():
        ours = network(*inputs(), True).numpy()
        assert np.array_equal(ours, network(*inputs(), False).numpy())
    assert [block.calls for block in network.blocks] == [2, 2, 2]


def test_a_second_gradient_of_one_graph_is_refused():
    network = Network()
    h, weight = recompute(network.blocks[0], *inputs(), 0.5), network.blocks[0].conv.weight
    jt.grad(h.sum(), weight, retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the loss again"):
        jt.grad((h * 3).sum(), weight)


def test_the_parameters_survive_a_block_that_fails_in_the_backward_pass():
    network = Network()
    block = network.blocks[0]
    before = block.conv.weight.numpy()
    h = recompute(block, *inputs(), 0.5)
    block.execute = lambda *inputs: 1 / 0
    with pytest.raises(Exception, match="division by zero"):
        jt.grad(h.sum(), block.conv.weight)
    assert np.array_equal(block.conv.weight.numpy(), before)
    del block.execute
    assert np.abs(jt.grad(block(*inputs(), 0.5).sum(), block.conv.weight).numpy()).max() > 0


def test_a_function_whose_parameters_nobody_knows_is_refused():
    block = Block()
    with pytest.raises(TypeError, match="not a module or a method of one"):
        recompute(lambda *inputs: block(*inputs), *inputs(), 0.5)
