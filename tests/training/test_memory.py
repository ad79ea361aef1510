import numpy as np
import pytest

from jseg.runtime import jt
from jseg.training import memory
from jseg.training.loop import TrainedNetwork
from jseg.training.memory import check_batch
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


def test_nothing_is_predicted_where_nothing_can_be_read(monkeypatch):
    monkeypatch.setattr(memory, "resident_bytes", lambda field: None)
    monkeypatch.setattr(memory, "free_bytes", lambda: 0)
    check_batch(part(), lambda count: count, 64)
