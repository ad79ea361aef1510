import numpy as np
import pytest

from jseg.runtime import jt
from jseg.training import memory
from jseg.training.loop import TrainedNetwork
from jseg.training.memory import check_batch, fitting_batch
from jseg.training.optimizer import AdamW

EACH = 64 << 20  # bytes that one example takes in `part`


def part():
    weight = jt.ones(1)

    def loss(batch):
        x = jt.array(np.ones((batch, EACH // 8), np.float32)) * weight
        return {"loss": (x * jt.sin(x)).mean()}

    return TrainedNetwork("", None, loss, AdamW({"weight": weight}, 0.1))


def test_a_batch_that_fits_passes_and_changes_nothing():
    trained = part()
    check_batch(trained, lambda count: count, 4)
    assert trained.optimizer.steps == 0 and trained.optimizer.parameters["weight"].item() == 1


def test_a_batch_that_does_not_fit_is_refused_with_one_that_does(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 8 * EACH)
    with pytest.raises(ValueError) as refused:
        check_batch(part(), lambda count: count, 64)
    line = str(refused.value)
    fits = int(line.split("--micro_batch ")[1].split()[0])
    assert line.startswith("64 examples at a time need about") and "\n" not in line
    assert 1 <= fits <= 16
    check_batch(part(), lambda count: count, int(0.8 * fits))  # two measurements differ


def test_jittor_s_pool_tells_the_same_slope(monkeypatch):
    """What is asked on a GPU, on the CPU's pool."""
    trained, sizes = part(), (1, 2, 5)
    one, two, five = (memory._pool_peak(trained, lambda count: count, size) for size in sizes)
    assert five - two == pytest.approx(3 * (two - one), rel=0.1)
    assert two - one >= EACH / 2


def test_what_was_chosen_becomes_smaller_where_less_fits(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 8 * EACH)
    fits = fitting_batch(part(), lambda count: count, 64)
    assert 1 <= fits <= 16
    assert fitting_batch(part(), lambda count: count, 2) == 2


def test_nothing_is_predicted_where_nothing_can_be_read(monkeypatch):
    monkeypatch.setattr(memory, "resident_bytes", lambda field: None)
    monkeypatch.setattr(memory, "free_bytes", lambda: 0)
    check_batch(part(), lambda count: count, 64)
