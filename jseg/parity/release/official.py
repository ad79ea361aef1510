"""The release's side of a comparison: its own functions, called as image_sample.py, merge_model.py
and train_util.py call them.

None of its code is here. What keeps it from running on today's Jittor is corrected from outside, in
this process alone, and every such nudge is listed: modules that are not installed and that nothing
here calls (nudges.py), and the order of the decoder's levels.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

import numpy as np
from PIL import Image

from jseg import checkpoint
from jseg.parity.release.computing import Computation, gradient, inference
from jseg.parity.release.inputs import MERGED, TIMESTEP, TRAINING_TIMESTEPS, Setting, layout_rows
from jseg.parity.release.nudges import StandIns, exact_group_norm
from jseg.parity.release.parts import STAGES
from jseg.runtime import jt

GUIDED = "models.guided_diffusion."


class Release:
    """The parts as `Ours` has them.

    exact_norms: group norms compute in float64, which shows whose rounding a difference is.
    """

    def __init__(
        self,
        setting: Setting,
        arrays: Dict[str, np.ndarray],
        folder: Path,
        exact_norms: bool = False,
    ):
        self.setting, self.arrays, self.folder = setting, arrays, folder
        self.nudges: List[str] = []
        sys.path.insert(0, setting.official)
        sys.meta_path.append(StandIns(self.nudges))
        if exact_norms:
            jt.nn.GroupNorm.execute = exact_group_norm
            self.nudges.append("group norms in float64 (this side only)")

    def unet_network(self, training: bool = False):
        unet = self.create_unet(training)
        checkpoint.load_into(unet, self.setting.unet_weights)
        (unet.train if training else unet.eval)()
        return unet

    def create_unet(self, training: bool = False):
        """The UNet of the setting, as create_model of script_util.py makes it; in training with
        checkpoints, as image_train.py asks.
        """
        config = self.setting.unet
        widths = [config.width // ds for ds in config.attention_downsampling]
        return importlib.import_module(GUIDED + "script_util").create_model(
            image_size=(config.width, config.height),
            num_classes=config.classes,
            num_channels=config.channels,
            num_res_blocks=config.blocks,
            channel_mult=",".join(map(str, config.channel_mult)),
            learn_sigma=True,
            class_cond=True,
            use_checkpoint=training,
            attention_resolutions=",".join(map(str, widths)),
            num_heads=4,
            num_head_channels=config.head_channels,
            use_scale_shift_norm=True,
            resblock_updown=True,
            no_instance=True,
        )

    def autoencoder_network(self):
        network = self.create_autoencoder()
        checkpoint.load_into(network, self.setting.autoencoder_weights)
        network.eval()
        return network

    def create_autoencoder(self):
        """The autoencoder of the setting, by the parameters of config/config-jittor.yaml."""
        config = self.setting.autoencoder
        settings = dict(
            double_z=False,
            z_channels=config.latent_channels,
            resolution=256,
            in_channels=config.picture_channels,
            out_ch=config.picture_channels,
            ch=config.channels,
            ch_mult=list(config.channel_mult),
            num_res_blocks=config.blocks,
            attn_resolutions=[],
            dropout=0.0,
        )
        network = importlib.import_module("models.autoencoder").VQModelInterface(
            embed_dim=config.latent_channels, n_embed=config.codebook_size, ddconfig=settings
        )
        levels = network.decoder.up.layers
        if list(levels) != sorted(levels):
            ordered = jt.nn.ModuleList()
            for name in sorted(levels):
                ordered.add_module(name, levels[name])
            network.decoder.up = ordered
            self.nudge("decoder: levels put into ascending order (docs/differences.md, no. 41)")
        return network

    def nudge(self, line: str) -> None:
        if line not in self.nudges:
            self.nudges.append(line)

    def diffusion(self, respacing: str):
        return importlib.import_module(GUIDED + "script_util").create_gaussian_diffusion(
            steps=1000, learn_sigma=True, noise_schedule="linear", timestep_respacing=respacing
        )

    def condition(self, name: str) -> Dict[str, object]:
        """{"y": one-hot maps} by preprocess_input of script_util.py."""
        label = {"label": jt.array(self.arrays[name][:, None].astype(np.int32))}
        return importlib.import_module(GUIDED + "script_util").preprocess_input(
            label, num_classes=self.setting.unet.classes
        )

    def layout(self) -> List[Computation]:
        def build():
            unet, autoencoder = self.create_unet(), self.create_autoencoder()
            return layout_rows(unet.state_dict(), autoencoder.state_dict())

        return [Computation(build, timed=False)]

    def encode(self) -> List[Computation]:
        network, image = self.autoencoder_network(), jt.array(self.arrays["image"])
        return [inference(lambda: {"latent": network.encode(image)})]

    def codes(self) -> List[Computation]:
        network, z = self.autoencoder_network(), jt.array(self.arrays["latent"])
        return [inference(lambda: {"codes": network.quantize(z)[2][2].reshape(-1)})]

    def decode(self) -> List[Computation]:
        network, z = self.autoencoder_network(), jt.array(self.arrays["latent"])
        return [inference(lambda: {"image": network.decode(z)})]

    def unet(self) -> List[Computation]:
        unet, y = self.unet_network(), self.condition("label")["y"]
        x, t = jt.array(self.arrays["x"]), jt.array([TIMESTEP])
        return [
            inference(lambda: {"conditional": unet(x, t, y=y)}),
            inference(lambda: {"null": unet(x, t, y=jt.zeros_like(y))}),
        ]

    def noise(self) -> List[Computation]:
        z = jt.array(self.arrays["latent"])

        def computation(number, stage):
            diffusion, t = self.diffusion(stage.respacing), jt.array([stage.start_index])
            noise = jt.array(self.arrays[f"noise.{number}"])
            return inference(lambda: {f"stage {number}": diffusion.q_sample(z, t, noise=noise)})

        return [computation(number, stage) for number, stage in enumerate(STAGES)]

    def step(self) -> List[Computation]:
        stage, unet, x = STAGES[self.setting.stage], self.unet_network(), jt.array(self.arrays["x"])
        diffusion = self.diffusion(stage.respacing)
        condition = {**self.condition("label"), "s": stage.guidance}
        t = jt.array([stage.start_index - 1])

        def run():
            step = diffusion.ddim_sample(unet, x, t, clip_denoised=False, model_kwargs=condition)
            return {"latent": step["sample"]}

        return [inference(run)]

    def stage(self) -> List[Computation]:
        number = self.setting.stage
        stage, unet, network = STAGES[number], self.unet_network(), self.autoencoder_network()
        diffusion = self.diffusion(stage.respacing)
        sampling = importlib.import_module("image_sample")
        condition = {**self.condition("label"), "s": stage.guidance}
        image = jt.array(self.arrays["image"])
        noise = jt.array(self.arrays[f"noise.{number}"])

        # As image_sample.py does it, from encoding to 8 bits; a first run of one step compiles all.
        def run(start=stage.start_index):
            t = jt.array([stage.start_index])
            x = diffusion.q_sample(network.encode(image), t=t, noise=noise)
            x = diffusion.ddim_sample_loop(
                unet,
                tuple(x.shape),
                noise=x,
                clip_denoised=False,
                model_kwargs=condition,
                progress=False,
                t_start=start,
            )
            decoded = network.decode(x.detach())
            pixels = np.array(sampling.custom_to_pil(decoded[0]))
            return {"latent": x, "decoded": decoded, "image": pixels}

        return [inference(run, lambda: run(1))]

    def colour(self) -> List[Computation]:
        normalize = importlib.import_module(GUIDED + "script_util").Normalize
        reference = Image.fromarray(self.arrays["reference"])

        def computation(row, name):
            image = Image.fromarray(self.arrays[name])
            return Computation(lambda: {row: np.array(normalize(reference, image))})

        return [computation("image", "source"), computation("flat", "flat")]

    def merge(self) -> List[Computation]:
        merge_ckpt = importlib.import_module("merge_model").merge_ckpt
        paths = [str(self.folder / name) for name in MERGED]

        def run():
            with tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder) / "merged.pkl")
                merge_ckpt(path, paths)
                return {"merged": checkpoint.load(path)}

        return [Computation(run, timed=False)]

    def train(self) -> List[Computation]:
        unet, diffusion = self.unet_network(training=True), self.diffusion("")
        condition = self.condition("labels")
        t = jt.array(list(TRAINING_TIMESTEPS[: self.setting.examples]))
        z, noise = (jt.array(self.arrays["train." + name]) for name in ("z", "noise"))

        def run():
            losses = diffusion.training_losses(unet, z, t, model_kwargs=condition, noise=noise)
            return {**losses, "gradient": gradient(unet, losses["loss"])}

        return [Computation(run)]
