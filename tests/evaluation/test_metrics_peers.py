"""Metrics against torchmetrics, pytorch-fid and torch-fidelity, colours against scikit-image."""

import numpy as np
import pytest
from support.peers import apart, peer

from jseg.images import to_signed
from jseg.ldm import color
from jseg.metrics import class_scores, confusion, frechet_distance, kernel_distance, mean_iou

MEASURED, COLOURS = peer("metrics_peers.npz"), peer("colour_skimage.npz")


def test_confusion_and_jaccard_are_torchmetrics():
    found = confusion(MEASURED["prediction"], MEASURED["target"], len(MEASURED["confusion"]), 255)
    assert np.array_equal(found, MEASURED["confusion"])
    present = found.sum(0) + found.sum(1) > 0
    assert not present.all(), "the data have an absent class"
    assert apart(class_scores(found).iou[present], MEASURED["jaccard"][present]) < 1e-6
    assert mean_iou(found) == pytest.approx(float(MEASURED["jaccard_macro"]), rel=1e-6)


@pytest.mark.parametrize("kind", ["full", "few", "rank2", "constant"])
def test_distances_of_feature_sets_are_pytorch_fid_s_and_torch_fidelity_s(kind):
    a, b = MEASURED[kind + "_a"], MEASURED[kind + "_b"]
    assert frechet_distance(a, b) == pytest.approx(
        float(MEASURED[kind + "_frechet"]), rel=1e-6, abs=1e-6
    )
    assert kernel_distance(a, b) == pytest.approx(
        float(MEASURED[kind + "_kernel"]), rel=1e-6, abs=1e-6
    )


# From the least to the largest L, a and b. scikit-image has 7.787 where CIE, and ours, have (29 /
# 6)^3 / 116.
SPAN = np.subtract(color.LAB_HIGH, color.LAB_LOW)


def test_lab_and_the_transfer_in_it_are_scikit_image_s():
    difference = color._lab_from_rgb(COLOURS["cube"] / 255.0) - COLOURS["lab"]
    assert np.abs(difference / SPAN).max() < 1e-6
    found = color.transfer_signed(to_signed(COLOURS["image"]), COLOURS["reference"])
    found = (found.transpose(1, 2, 0) + 1) / 2
    assert apart(found, COLOURS["transferred"]) < 1e-6
