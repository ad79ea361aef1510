"""Gradients of the training loss against PyTorch's, and against finite differences of the loss.

golden/gradients.npz: of every parameter's gradient, computed in float64 by the PyTorch SDM code
under the weights recipe, the norm and the projection on a direction (the recipe's array for
NAME.direction, normalised), at the data of golden/training.npz but timesteps `t`.

float32 carries about seven digits of a loss. A step changes the loss by 0.3 %, so that rounding
leaves four digits of the difference, and four central points leave errors of the fourth order only:
3e-4 is reached, TOLERANCE asked for. Each check is the slope along the normalised gradient of one
part of the network, so that a part's wrong gradient is not hidden by the others.
"""

import dataclasses

import numpy as np
import pytest
from support.golden_networks import SMALL_UNET, filled, golden

from jseg.ldm.loss import diffusion_loss
from jseg.ldm.presets import UNETS
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.nn.layers import one_hot
from jseg.parity.stand_in import value
from jseg.runtime import jt
from jseg.training.optimizer import trainable

TOLERANCE = 1e-3


def test_every_gradient_is_that_of_the_pytorch_sdm_code():
    arrays, expected = golden("training.npz"), golden("gradients.npz")
    unet = filled(UNet(SMALL_UNET))
    unet.train()
    parameters = trainable(unet)
    y = one_hot(arrays["label"][:, 0], 29)
    loss = diffusion_loss(unet, Schedule(), arrays["z0"], expected["t"], y, arrays["noise"])[
        "loss"
    ].mean()
    gradients = {
        name: v.numpy()
        for name, v in zip(parameters, jt.grad(loss, list(parameters.values()), retain_graph=False))
    }
    assert sorted(gradients) == list(expected["names"])
    rounding = 1e-6 * expected["norm"].max()  # 15 gradients are zero but for rounding
    for name, norm, projection in zip(expected["names"], expected["norm"], expected["projection"]):
        gradient = gradients[name].astype(np.float64)
        direction = value(f"{name}.direction", gradients[name].shape).astype(np.float64)
        assert abs(np.linalg.norm(gradient) - norm) < 2e-5 * norm + rounding, name
        assert (
            abs((gradient * direction).sum() / np.linalg.norm(direction) - projection)
            < 2e-5 * norm + rounding
        ), name


class Loss:
    """A tiny UNet under the weights recipe and the mean of a term of its loss; `eps` holds the
    noise prediction fixed.
    """

    def __init__(self):
        self.unet = filled(UNet(dataclasses.replace(UNETS["tiny"], classes=5)))
        self.unet.train()
        self.parameters = trainable(self.unet)
        rng = np.random.default_rng(0)
        self.z, self.noise = rng.standard_normal((2, 2, 3, 12, 16)).astype(np.float32)
        self.y = one_hot(rng.integers(0, 5, (2, 12, 16)), 5)
        self.t = np.array([3, 700])
        self.schedule = Schedule()
        self.eps = self.seen = None

    def __call__(self, term):
        return diffusion_loss(self.predict, self.schedule, self.z, self.t, self.y, self.noise)[
            term
        ].mean()

    def predict(self, x, t, y):
        out = self.unet(x, t, y)
        self.seen = out[:, :3]
        return out if self.eps is None else jt.concat([self.eps, out[:, 3:]], dim=1)

    def gradients(self, term):
        found = jt.grad(self(term), list(self.parameters.values()), retain_graph=False)
        return {name: gradient.numpy() for name, gradient in zip(self.parameters, found)}

    def slope(self, term, directions, h):
        """The term's derivative where the named parameters move along their directions: four
        central points at h and 2 h.
        """
        values, kept = {}, {name: self.parameters[name].numpy() for name in directions}
        for step in (h, -h, 2 * h, -2 * h, 0):
            for name, direction in directions.items():
                self.parameters[name].assign(
                    jt.array((kept[name] + step * direction).astype(np.float32))
                )
            with jt.no_grad():
                values[step] = float(self(term).item())
        return (8 * (values[h] - values[-h]) - (values[2 * h] - values[-2 * h])) / (12 * h)


@pytest.fixture(scope="module")
def loss():
    return Loss()


def part(name):
    """time_embed, input_blocks.3, middle_block.1, out: the part of the network that a parameter
    belongs to.
    """
    words = name.split(".")
    return ".".join(words[:2]) if words[0].endswith(("blocks", "block")) else words[0]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("term", ["mse", "vb"])
def test_the_gradient_of_every_part_is_the_slope_of_the_loss(loss, term, recompute):
    """The variational term takes the predicted noise as given, so its differences hold that
    fixed.
    """
    loss.unet.recompute, loss.eps = recompute, None
    gradients = loss.gradients(term)
    if term == "vb":
        loss.eps = loss.seen.detach()
    size, found = loss(term).item(), {}
    for name in sorted(set(map(part, gradients))):
        of_part = {key: gradient for key, gradient in gradients.items() if part(key) == name}
        norm = np.sqrt(
            sum((gradient.astype(np.float64) ** 2).sum() for gradient in of_part.values())
        )
        directions = {key: gradient / norm for key, gradient in of_part.items()}
        found[name] = abs(loss.slope(term, directions, h=0.003 * size / norm) / norm - 1)
    assert len(found) == 13 and max(found.values()) < TOLERANCE, found
