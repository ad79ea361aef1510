"""The release's side of a comparison: its own functions, called as image_sample.py, merge_model.py
and train_util.py call them.

None of its code is here. What keeps it from running on today's Jittor is put right from outside, in
this process alone, and every such nudge is listed: modules that are not installed and that nothing
here calls, and the order of the decoder's levels.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import tempfile
import types
from pathlib import Path
from typing import Dict, List

import numpy as np
from PIL import Image

from jseg import checkpoint
from jseg.parity.release.computing import Computation, gradient, inference
from jseg.parity.release.inputs import MERGED, TIMESTEP, TRAINING_TIMESTEPS, Setting, layout_rows
from jseg.parity.release.parts import STAGES
from jseg.runtime import jt

GUIDED = "models.guided_diffusion."
STAND_INS = (
    "mpi4py",
    "blobfile",
    "omegaconf",
    "albumentations",
    "requests",
    "npy_append_array",
    "cupy",
    "yaml",
)


class Release:
    """The parts as `Ours` has them. `exact_norms`: group norms compute in float64, to tell whose
    rounding a difference is.
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
        return importlib.import_module(GUIDED + "script_util").create_model(
            image_size=(config.width, config.height),
            num_classes=config.classes,
            num_channels=config.channels,
            num_res_blocks=config.blocks,
            channel_mult=",".join(map(str, config.channel_mult)),
            learn_sigma=True,
            class_cond=True,
            use_checkpoint=training,
            attention_resolutions=",".join(
                str(config.width // ds) for ds in config.attention_downsampling
            ),
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
        return [
            Computation(
                lambda: layout_rows(
                    self.create_unet().state_dict(), self.create_autoencoder().state_dict()
                ),
                timed=False,
            )
        ]

    def encode(self) -> List[Computation]:
        network, image = self.autoencoder_network(), jt.array(self.arrays["picture"])
        return [inference(lambda: {"latent": network.encode(image)})]

    def codes(self) -> List[Computation]:
        network, z = self.autoencoder_network(), jt.array(self.arrays["latent"])
        return [inference(lambda: {"codes": network.quantize(z)[2][2].reshape(-1)})]

    def decode(self) -> List[Computation]:
        network, z = self.autoencoder_network(), jt.array(self.arrays["latent"])
        return [inference(lambda: {"picture": network.decode(z)})]

    def unet(self) -> List[Computation]:
        unet, y = self.unet_network(), self.condition("label")["y"]
        x, t = jt.array(self.arrays["x"]), jt.array([TIMESTEP])
        return [
            inference(lambda: {"conditional": unet(x, t, y=y)}),
            inference(lambda: {"null": unet(x, t, y=jt.zeros_like(y))}),
        ]

    def noise(self) -> List[Computation]:
        z = jt.array(self.arrays["latent"])
        return [
            inference(
                lambda number=number, stage=stage, diffusion=self.diffusion(stage.respacing): {
                    f"stage {number}": diffusion.q_sample(
                        z,
                        jt.array([stage.start_index]),
                        noise=jt.array(self.arrays[f"noise.{number}"]),
                    )
                }
            )
            for number, stage in enumerate(STAGES)
        ]

    def step(self) -> List[Computation]:
        stage, unet, x = STAGES[self.setting.stage], self.unet_network(), jt.array(self.arrays["x"])
        diffusion, told = (
            self.diffusion(stage.respacing),
            {**self.condition("label"), "s": stage.guidance},
        )
        t = jt.array([stage.start_index - 1])
        return [
            inference(
                lambda: {
                    "latent": diffusion.ddim_sample(
                        unet, x, t, clip_denoised=False, model_kwargs=told
                    )["sample"]
                }
            )
        ]

    def stage(self) -> List[Computation]:
        number = self.setting.stage
        stage, unet, network, image = (
            STAGES[number],
            self.unet_network(),
            self.autoencoder_network(),
            jt.array(self.arrays["picture"]),
        )
        diffusion, sampling = (
            self.diffusion(stage.respacing),
            importlib.import_module("image_sample"),
        )
        told = {**self.condition("label"), "s": stage.guidance}

        def run(start=stage.start_index):
            x = diffusion.q_sample(
                network.encode(image),
                t=jt.array([stage.start_index]),
                noise=jt.array(self.arrays[f"noise.{number}"]),
            )
            x = diffusion.ddim_sample_loop(
                unet,
                tuple(x.shape),
                noise=x,
                clip_denoised=False,
                model_kwargs=told,
                progress=False,
                t_start=start,
            )
            decoded = network.decode(x.detach())
            return {
                "latent": x,
                "decoded": decoded,
                "picture": np.array(sampling.custom_to_pil(decoded[0])),
            }

        return [inference(run, lambda: run(1))]

    def colour(self) -> List[Computation]:
        normalize = importlib.import_module(GUIDED + "script_util").Normalize
        reference = Image.fromarray(self.arrays["reference"])
        return [
            Computation(
                lambda row=row, image=Image.fromarray(self.arrays[name]): {
                    row: np.array(normalize(reference, image))
                }
            )
            for row, name in (("picture", "source"), ("flat", "flat"))
        ]

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
        unet, diffusion, told = (
            self.unet_network(training=True),
            self.diffusion(""),
            self.condition("labels"),
        )
        t = jt.array(list(TRAINING_TIMESTEPS[: self.setting.examples]))
        z, noise = (jt.array(self.arrays["train." + name]) for name in ("z", "noise"))

        def run():
            losses = diffusion.training_losses(unet, z, t, model_kwargs=told, noise=noise)
            return {**losses, "gradient": gradient(unet, losses["loss"])}

        return [Computation(run)]


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The last of the finders: gives an empty module for those of STAND_INS that are not installed,
    and notes it in `nudges`.
    """

    def __init__(self, nudges: List[str]):
        self.nudges = nudges

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in STAND_INS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        if "." not in spec.name:
            self.nudges.append(
                f"{spec.name} is not installed: an empty module, which nothing calls"
            )
        return _Empty(spec.name)

    def exec_module(self, module):
        pass


class _Empty(types.ModuleType):
    """A module whose every attribute can be imported and none be called."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")


class _Absent:
    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self._name}.{name}")

    def __call__(self, *args, **options):
        raise NotImplementedError(
            f"the release called {self._name}, whose package is not installed; install it"
        )


def exact_group_norm(self, x):
    """Group norm in float64 in place of jittor.nn.GroupNorm.execute: float32 in, float32 out."""
    rows = x.float64().reshape(x.shape[0], self.num_groups, -1)
    rows = rows - rows.mean(-1, keepdims=True)
    y = (rows / jt.sqrt((rows * rows).mean(-1, keepdims=True) + self.eps)).reshape(x.shape)
    if self.affine:
        y = y * self.weight.float64().reshape(
            1, -1, *[1] * (x.ndim - 2)
        ) + self.bias.float64().reshape(1, -1, *[1] * (x.ndim - 2))
    return y.float32()
