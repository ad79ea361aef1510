"""ODE solvers against torchdiffeq and PixNerd's own samplers, state by state."""

import numpy as np
import pytest
from support.peers import apart, peer

from jseg.flowseg.ode import adams2, euler, heun
from jseg.runtime import jt

SOLVED = peer("solvers_peers.npz")


def velocity(x, t):
    x, t = x.numpy().astype(np.float64), t.numpy().astype(np.float64).reshape(-1, 1, 1, 1)
    return jt.array((np.tanh(2 * x + 0.3) - x * np.cos(3 * t) + np.sin(5 * t)).astype(np.float32))


@pytest.mark.parametrize(
    "name, method, times, options, compared",
    [
        ("torchdiffeq_euler", euler, "grid", {}, 7),
        ("torchdiffeq_heun2", heun, "grid", {}, 6),
        ("pixnerd_heun_exact", heun, "pixnerd_times", {}, 10),
        ("pixnerd_heun_reuse", heun, "pixnerd_times", {"reuse": True}, 10),
        ("pixnerd_adams2", adams2, "pixnerd_times", {}, 10),
    ],
)
def test_every_state_of_a_solver_is_the_peer_s(name, method, times, options, compared):
    """Of torchdiffeq's Heun all but the last state, which it reaches by a Heun step and ours by an
    Euler step.
    """
    states = [x.numpy() for x in method(velocity, jt.array(SOLVED["x"]), SOLVED[times], **options)]
    assert len(states) == len(SOLVED[name])
    assert apart(np.stack(states[:compared]), SOLVED[name][:compared]) < 1e-6
