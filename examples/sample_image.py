"""Sample an image: label map and style reference in, image out (IIDM), by the weights that ship.

The label map and the reference are drawn here; `read_label` and `read_image` take your own files.

    python examples/sample_image.py

It writes sample_image.png (label map, reference, image) and prints

    the label map shows mountain, sky, rock, tree, earth, grass, plant, lake, house
    10 guided steps from timestep 500
    sample_image.png: label map, reference and an image of 128x96
"""

from dataclasses import replace

import numpy as np

from jseg.data.classes import CLASS_SETS, colorize
from jseg.images import save_image
from jseg.landscapes.draw import landscape
from jseg.ldm.presets import PIPELINES, Stage
from jseg.ldm.refine import Synthesizer
from jseg.ldm.weights import SHIPPED_AUTOENCODER, SHIPPED_MODEL

# The label map of one scene, the style of another.
_, label = landscape(seed=3, width=128, height=96)  # [96, 128] uint8, ids 0 to 28
reference, _ = landscape(seed=11, width=128, height=96)  # [96, 128, 3] uint8
classes = CLASS_SETS["landscape-29"]
print("the label map shows", ", ".join(classes.names[i] for i in np.unique(label)))

# One stage: noise the reference's latent to t = 500, denoise it under the label map.
stage = Stage(
    guidance=2.5,
    respacing="",  # all 1000 timesteps, of which `steps` are visited
    start_index=500,
    sampler="dpmpp_2m",
    steps=10,
    spacing="quadratic",
)
pipeline = replace(PIPELINES["fine"], stages=(stage,))
print(f"{stage.steps} guided steps from timestep {stage.start_index}")

# The noise depends on the seed and the stem alone.
synthesizer = Synthesizer.from_files(SHIPPED_MODEL, SHIPPED_AUTOENCODER, preset=pipeline)
image = synthesizer.synthesize(label, reference, seed=0, stem="example")  # [96, 128, 3] uint8

save_image("sample_image.png", np.hstack([colorize(label, classes), reference, image]))
print(f"sample_image.png: label map, reference and an image of {image.shape[1]}x{image.shape[0]}")
