import dataclasses

import numpy as np
import pytest
from support.small_flowseg import CLASSES, TINY, Knowing, random_network, scene

from jseg.data.classes import ClassSet, spread_palette
from jseg.data.examples import Example
from jseg.flowseg.validation import SHOWN, Validation
from jseg.images import read_image

CLASS_SET = ClassSet("four", tuple("abcd"), spread_palette(CLASSES))


def examples(count=3):
    return [Example(f"s{seed}", f"s{seed}.jpg", f"s{seed}.png") for seed in range(count)]


def load(example):
    image, label = scene(int(example.stem[1:]))
    label[0] = 255
    return image, label


def test_a_network_that_knows_scores_one():
    network = Knowing()
    assert Validation(network, examples(), load, CLASS_SET, 2)() == {"miou": 1.0, "accuracy": 1.0}
    assert network.training and len(network.shapes) == 3 * 2


def test_the_score_is_that_of_one_matrix_over_all_known_pixels():
    """A network that never finds class 3 and calls it 0: intersections and unions are added up over
    the images.
    """
    network = Knowing()
    network.classify = lambda image, start: network.red(image, start) % 3
    found = Validation(network, examples(), load, CLASS_SET, 1)()
    labels = np.concatenate([load(example)[1].ravel() for example in examples()])
    labels = labels[labels != 255]
    found_labels = labels % 3
    iou = [
        ((labels == k) & (found_labels == k)).sum() / ((labels == k) | (found_labels == k)).sum()
        for k in range(CLASSES)
    ]
    assert found["miou"] == pytest.approx(np.mean(iou)) and iou[3] == 0
    assert found["accuracy"] == pytest.approx((labels == found_labels).mean())


def test_it_ends_at_once_when_asked_and_leaves_the_network_training():
    network, asked = Knowing(), []

    def stop():
        asked.append(1)
        return len(asked) > 1

    assert Validation(network, examples(), load, CLASS_SET, 1)(stop) is None
    assert len(network.shapes) == 1 and network.training


def test_an_error_too_leaves_the_network_training():
    network = random_network()

    def failing(example):
        raise OSError("gone")

    validation = Validation(network, examples(), failing, CLASS_SET)
    for call in (validation, lambda: validation.preview("x")):
        with pytest.raises(OSError):
            call()
        assert network.is_training() and not network.final_layer.linear.weight.is_stop_grad()


def test_a_preview_shows_image_label_and_result(tmp_path):
    config = dataclasses.replace(TINY)
    Validation(Knowing(config), examples(2), load, CLASS_SET, 1).preview(tmp_path / "two.png")
    Validation(Knowing(config), examples(20), load, CLASS_SET, 1).preview(tmp_path / "many.png")
    two, many = (read_image(tmp_path / name) for name in ("two.png", "many.png"))
    assert many.shape[0] > two.shape[0] > 2 * 32 and two.shape[1] > 3 * 48 and SHOWN == 6
    colours = {tuple(colour) for colour in two.reshape(-1, 3)}
    assert {tuple(colour) for colour in CLASS_SET.palette} <= colours and (0, 0, 0) in colours
