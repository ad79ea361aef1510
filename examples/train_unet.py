"""Train a tiny UNet of IIDM on drawn landscapes: data, network, loss and steps on one page.

    python examples/train_unet.py

It writes train_unet.safetensors, weights with their configuration, and prints

    step 10: loss 0.84
    step 20: loss 0.54
    step 30: loss 0.33
    step 40: loss 0.28
    train_unet.safetensors: 1,163,526 parameters after 40 steps
"""

import numpy as np

from jseg import checkpoint, runtime
from jseg.images import resize_label, to_signed
from jseg.landscapes.draw import landscape
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.loss import diffusion_loss
from jseg.ldm.presets import UNETS
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.ldm.weights import SHIPPED_AUTOENCODER
from jseg.nn.layers import one_hot
from jseg.runtime import jt
from jseg.training.optimizer import AdamW, trainable

config, steps, batch = UNETS["tiny"], 40, 4
runtime.seed(0)  # of the first weights
random = np.random.default_rng(0)  # of the choice, the timesteps and the noise

# Data: the latents of 16 images of 64x48, and their label maps at the latents' size.
autoencoder = Autoencoder(checkpoint.load_config(SHIPPED_AUTOENCODER))
checkpoint.load_into(autoencoder, SHIPPED_AUTOENCODER)
images, labels = zip(*(landscape(seed, width=64, height=48) for seed in range(16)))
with jt.no_grad():
    x = jt.array(np.stack([to_signed(image) for image in images]))  # [16, 3, 48, 64]
    z = autoencoder.encode(x).numpy()  # [16, 3, 12, 16]
maps = np.stack([resize_label(label, config.width, config.height) for label in labels])

# Training: the release's loss at random timesteps.
unet, schedule = UNet(config), Schedule()
parameters = trainable(unet)
optimizer = AdamW(parameters, learning_rate=1e-3)
losses = []
for step in range(1, steps + 1):
    chosen = random.choice(len(z), batch, replace=False)
    t = random.integers(0, len(schedule), batch)
    noise = random.standard_normal(z[chosen].shape).astype(np.float32)
    y = one_hot(maps[chosen], config.classes)  # [4, 29, 12, 16]

    loss = diffusion_loss(unet, schedule, z[chosen], t, y, noise)["loss"].mean()
    optimizer.step(dict(zip(parameters, jt.grad(loss, list(parameters.values())))))

    losses.append(loss.item())
    if step % 10 == 0:
        print(f"step {step}: loss {np.mean(losses[-10:]):.2f}")

checkpoint.save("train_unet.safetensors", unet.state_dict(), config)
size = sum(value.numel() for value in parameters.values())
print(f"train_unet.safetensors: {size:,} parameters after {steps} steps")
