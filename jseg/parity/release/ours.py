"""Our side of a comparison: every part by the functions that the commands use."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import numpy as np

from jseg import checkpoint
from jseg.images import from_signed
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.color import transfer
from jseg.ldm.loss import diffusion_loss
from jseg.ldm.samplers import add_noise, ddim, guided
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.nn.layers import one_hot
from jseg.parity.release.computing import Computation, gradient, inference
from jseg.parity.release.inputs import MERGED, TIMESTEP, TRAINING_TIMESTEPS, Setting, layout_rows
from jseg.parity.release.parts import STAGES
from jseg.runtime import jt


class Ours:
    """The parts, each a method that gives its computations; `folder` holds the inputs."""

    def __init__(self, setting: Setting, arrays: Dict[str, np.ndarray], folder: Path):
        self.setting, self.arrays, self.folder = setting, arrays, folder
        self.nudges: List[str] = []

    def unet_network(self) -> UNet:
        unet = UNet(self.setting.unet)
        checkpoint.load_into(unet, self.setting.unet_weights)
        unet.eval()
        return unet

    def autoencoder_network(self) -> Autoencoder:
        network = Autoencoder(self.setting.autoencoder)
        checkpoint.load_into(network, self.setting.autoencoder_weights)
        network.eval()
        return network

    def maps(self, name: str):
        """One-hot maps [n, classes, h, w] of the label maps of that name."""
        return one_hot(self.arrays[name], self.setting.unet.classes)

    def layout(self) -> List[Computation]:
        def build():
            unet, autoencoder = UNet(self.setting.unet), Autoencoder(self.setting.autoencoder)
            return layout_rows(unet.state_dict(), autoencoder.state_dict())

        return [Computation(build, timed=False)]

    def encode(self) -> List[Computation]:
        network, image = self.autoencoder_network(), jt.array(self.arrays["image"])
        return [inference(lambda: {"latent": network.encode(image)})]

    def codes(self) -> List[Computation]:
        network, z = self.autoencoder_network(), jt.array(self.arrays["latent"])
        return [inference(lambda: {"codes": network.codes(z).reshape(-1)})]

    def decode(self) -> List[Computation]:
        network, z = self.autoencoder_network(), jt.array(self.arrays["latent"])
        return [inference(lambda: {"image": network.decode(z)})]

    def unet(self) -> List[Computation]:
        unet, y = self.unet_network(), self.maps("label")
        x, t = jt.array(self.arrays["x"]), jt.array(np.array([TIMESTEP], np.int32))
        return [
            inference(lambda: {"conditional": unet(x, t, y)}),
            inference(lambda: {"null": unet(x, t, jt.zeros_like(y))}),
        ]

    def noise(self) -> List[Computation]:
        z = self.arrays["latent"]

        def computation(number, stage):
            schedule, noise = Schedule(stage.respacing), self.arrays[f"noise.{number}"]
            return inference(
                lambda: {f"stage {number}": add_noise(schedule, z, stage.start_index, noise)}
            )

        return [computation(number, stage) for number, stage in enumerate(STAGES)]

    def step(self) -> List[Computation]:
        stage, unet, x = STAGES[self.setting.stage], self.unet_network(), jt.array(self.arrays["x"])
        predictor = guided(unet, self.maps("label"), stage.guidance)
        schedule = Schedule(stage.respacing)
        return [
            inference(lambda: {"latent": next(ddim(predictor, x, schedule, stage.start_index))})
        ]

    def stage(self) -> List[Computation]:
        number = self.setting.stage
        stage, unet, network = STAGES[number], self.unet_network(), self.autoencoder_network()
        image, noise = jt.array(self.arrays["image"]), self.arrays[f"noise.{number}"]

        def run(start=stage.start_index):
            schedule = Schedule(stage.respacing)
            x = add_noise(schedule, network.encode(image), stage.start_index, noise)
            predictor = guided(unet, self.maps("label"), stage.guidance)
            for x in ddim(predictor, x, schedule, start):
                pass
            decoded = network.decode(x).numpy()
            return {"latent": x, "decoded": decoded, "image": from_signed(decoded[0], "truncate")}

        return [inference(run, lambda: run(1))]

    def colour(self) -> List[Computation]:
        reference = self.arrays["reference"]

        def computation(row, name):
            image = self.arrays[name]
            return Computation(lambda: {row: transfer(image, reference)})

        return [computation("image", "source"), computation("flat", "flat")]

    def merge(self) -> List[Computation]:
        weighted = [(self.folder / name, 1.0) for name in MERGED]

        def merge():
            return {"merged": checkpoint.average(weighted)}

        return [Computation(merge, timed=False)]

    def train(self) -> List[Computation]:
        unet, y = self.unet_network(), self.maps("labels")
        unet.train()
        unet.recompute = True  # as the release always trains
        t, schedule = np.array(TRAINING_TIMESTEPS[: self.setting.examples]), Schedule()
        z, noise = (jt.array(self.arrays["train." + name]) for name in ("z", "noise"))

        def run():
            losses = diffusion_loss(unet, schedule, z, t, y, noise)
            return {**losses, "gradient": gradient(unet, losses["loss"])}

        return [Computation(run)]
