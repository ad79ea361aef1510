"""Segment an image: image in, label map out (FlowSeg), by the weights that ship.

The image is drawn here, with its true label map; `read_image` takes your own file of any size.

    python examples/segment_image.py

It writes segment_image.png (image, predicted map, true map) and prints

    steps=1: 87% of the pixels right, mIoU 0.31
    steps=2: 88% of the pixels right, mIoU 0.38
    steps=10: 87% of the pixels right, mIoU 0.35
    segment_image.png: image, predicted label map, true label map
"""

import numpy as np

from jseg.data.classes import CLASS_SETS, colorize
from jseg.flowseg.predict import SHIPPED, Segmenter
from jseg.images import save_image
from jseg.landscapes.draw import landscape
from jseg.metrics import confusion, mean_iou, pixel_accuracy

classes = CLASS_SETS["landscape-29"]
image, truth = landscape(seed=3, width=128, height=96)  # [96, 128, 3] and [96, 128] uint8

# The flow runs from the image (t = 0) to class codes (t = 1); more Euler steps follow it closer.
for steps in (1, 2, 10):
    labels = Segmenter.from_file(SHIPPED, steps=steps).segment(image)  # [96, 128] int32
    counts = confusion(labels, truth, len(classes))  # [29, 29], rows are the true classes
    accuracy, miou = pixel_accuracy(counts), mean_iou(counts)
    print(f"steps={steps}: {accuracy:.0%} of the pixels right, mIoU {miou:.2f}")

shown = [image, colorize(labels, classes), colorize(truth, classes)]
save_image("segment_image.png", np.hstack(shown))
print("segment_image.png: image, predicted label map, true label map")
