"""IIDM inference: the stages that turn a semantic map and a style photograph into an image.

Each stage encodes an image (first the reference, then the image before it, given the reference's
colours), noises the latent to the stage's start index, denoises it under the map and decodes it.
Mirrors image_sample.py and test.py of the release; IIDM (Liu and Chang 2024), figures 2 to 4. Noise
is drawn per image and stage (`jseg.noise`), so the batch does not matter.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np

from jseg import runtime
from jseg.checkpoint import load_into
from jseg.data.validation import same_aspect
from jseg.images import from_signed, jpeg_round_trip, resize_image, resize_label, to_signed
from jseg.ldm import low_memory
from jseg.ldm.autoencoder import Autoencoder
from jseg.ldm.color import transfer, transfer_signed
from jseg.ldm.pipelines import check_pipeline, first_index, pipeline_named, stage_eta, stage_steps
from jseg.ldm.presets import Pipeline
from jseg.ldm.samplers import SAMPLERS, add_noise, guided
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.ldm.weights import find_weights
from jseg.nn.layers import one_hot
from jseg.nn.precision import use as use_precision
from jseg.noise import check_seed, normal
from jseg.runtime import jt


@dataclass(frozen=True)
class Progress:
    """Where a running synthesis is: reported after every denoising step, and with `images` at the
    end of every stage.
    """

    stage: int  # counted from 0
    step: int  # steps done in this stage
    steps: int  # steps of this stage
    images: Optional[List[np.ndarray]] = None  # uint8 [H, W, 3] each, after the stage's last step


class Synthesizer:
    """The two networks and a pipeline, ready to turn (label map, reference) pairs into images.

    Synthesizer.from_files(model_path, ae_path, preset="release").synthesize(label, reference,
    seed=0) is the whole of IIDM. memory: "low" computes the modulations of large maps again at
    every step, "full" keeps all, "auto" decides by the free memory (`low_memory.choose`); the
    images are the same.
    """

    def __init__(
        self, unet: UNet, autoencoder: Autoencoder, pipeline: Pipeline, memory: str = "auto"
    ):
        self.unet, self.autoencoder, self.pipeline = unet, autoencoder, check_pipeline(pipeline)
        self.memory = low_memory.check_mode(memory)

        # The networks fit each other, and the latent fits the UNet.
        ours, theirs = unet.config, autoencoder.config
        if theirs.latent_channels != ours.latent_channels or theirs.picture_channels != 3:
            raise ValueError(
                f"the UNet works on latents of {ours.latent_channels} channels, the autoencoder "
                f"makes {theirs.latent_channels} of images with {theirs.picture_channels}; "
                "expected equal numbers and 3; give two networks trained together"
            )
        halvings = len(ours.channel_mult) - 1
        if any(side < 1 or side % 2**halvings for side in self.latent_size):
            raise ValueError(
                f"the UNet's latent size is {self.latent_size[0]}x{self.latent_size[1]}; expected "
                f"multiples of {2**halvings}, for its {halvings} halvings; give the size that it "
                "was trained at"
            )

        unet.eval()
        autoencoder.eval()

    @classmethod
    def from_files(
        cls,
        model_path=None,
        ae_path=None,
        preset="release",
        device: str = "auto",
        memory: str = "auto",
        precision: Optional[str] = None,
    ) -> "Synthesizer":
        """Load both networks, strictly; without paths, the weights that are found.

        preset: a key of PIPELINES or a Pipeline. device, precision: those of the process from then
        on, precision a key of `nn.precision.PRECISIONS`, None for tf32 on CUDA and float32 on the
        CPU. Raises FileNotFoundError or CheckpointError, in
        one line, for weights that are missing or belong to another network.
        """
        pipeline = pipeline_named(preset)
        low_memory.check_mode(memory)  # before the long work
        weights = find_weights(model_path, ae_path)
        unet_config, autoencoder_config = weights.configs()
        use_precision(precision, runtime.device(device))

        unet, autoencoder = UNet(unet_config), Autoencoder(autoencoder_config)
        load_into(unet, weights.model)
        load_into(autoencoder, weights.autoencoder)
        return cls(unet, autoencoder, pipeline, memory)

    @property
    def latent_size(self) -> Tuple[int, int]:
        """(width, height) of the latent, that of the UNet's training."""
        return self.unet.config.width, self.unet.config.height

    @property
    def size(self) -> Tuple[int, int]:
        """(width, height) of the images."""
        factor = self.autoencoder.config.downsampling
        return self.latent_size[0] * factor, self.latent_size[1] * factor

    def synthesize(
        self, label: np.ndarray, reference: np.ndarray, seed: int = 0, stem: str = "x"
    ) -> np.ndarray:
        """One image uint8 [H, W, 3] from a label map [h, w] of class ids and a reference photograph
        uint8 [h', w', 3] RGB.

        Both are resized where their aspect ratio is the image's (labels by nearest). `seed` and
        `stem` fix the noise; the command takes the label file's stem. Raises ValueError for other
        aspect ratios and for ids beyond the classes, except 255, where nothing is known.
        """
        check_seed(seed)
        ids, photograph = np.asarray(label), np.asarray(reference)
        self._check(ids, photograph)
        ids = resize_label(np.ascontiguousarray(ids, np.uint8), *self.latent_size)
        photograph = resize_image(np.ascontiguousarray(photograph, np.uint8), *self.size)
        *_, last = self.run([ids], [photograph], seed, [stem])
        return last.images[0]

    def run(
        self,
        labels: Sequence[np.ndarray],
        references: Sequence[np.ndarray],
        seed: int,
        stems: Sequence[str],
    ) -> Iterator[Progress]:
        """Synthesize a batch, yielding `Progress`; the last one holds the results.

        labels: uint8 [h, w] at the latent's size, 255 where ignored; references: uint8 [H, W, 3] at
        the image's size.
        """
        device = "cuda" if jt.flags.use_cuda else "cpu"
        if device == "cuda" and self.memory == "auto":
            jt.gc()  # what Jittor keeps for later arrays is free memory too
        low = low_memory.choose(self.memory, self.unet.config, len(labels), device).low
        maps = one_hot(np.stack(labels), self.unet.config.classes)  # [B, classes, h, w]
        images = [to_signed(reference) for reference in references]
        for number, stage in enumerate(self.pipeline.stages):
            # encode
            if stage.color_transfer:
                images = [self._recoloured(*pair) for pair in zip(images, references)]
            z = self._encoded(images)  # [B, 3, h, w]

            # noise
            draw = functools.partial(_noise, seed, stems, z.shape[1:])
            schedule = Schedule(stage.respacing)
            x = add_noise(schedule, z, stage.start_index, draw(number))

            # denoise
            guidance_interval = (stage.guidance_low, stage.guidance_high)
            predictor = guided(self.unet, maps, stage.guidance, guidance_interval, low)
            latents = SAMPLERS[stage.sampler](
                predictor,
                x,
                schedule,
                first_index(self.pipeline, number),
                eta=stage_eta(stage),
                noise=lambda index, number=number, draw=draw: draw(f"{number}.{index}"),
                steps=stage.steps or None,
                spacing=stage.spacing,
            )
            steps = stage_steps(self.pipeline, number)
            for step, x in enumerate(latents, start=1):
                yield Progress(number, step, steps)
            del predictor, latents  # free the maps' modulations before the decoder needs memory

            # decode
            decoded = self._decoded(x)
            finished = [from_signed(image, self.pipeline.rounding) for image in decoded]
            yield Progress(number, steps, steps, finished)
            if number + 1 < len(self.pipeline.stages):
                images = self._handed_over(decoded, finished)

    def _check(self, label: np.ndarray, reference: np.ndarray) -> None:
        # shapes and types
        rgb = reference.ndim == 3 and reference.shape[2] == 3
        if label.ndim != 2 or not rgb or not label.size or not reference.size:
            raise ValueError(
                f"synthesize: got a label of shape {label.shape} and a reference of shape "
                f"{reference.shape}; expected [h, w] class ids and [h, w, 3] RGB"
            )
        if label.dtype.kind not in "iu" or reference.dtype != np.uint8:
            raise ValueError(
                f"synthesize: got a label of type {label.dtype} and a reference of type "
                f"{reference.dtype}; expected integers, and uint8 from 0 to 255"
            )

        # sizes and ids
        width, height = self.size
        for name, array in (("label", label), ("reference", reference)):
            if not same_aspect(array.shape[1], array.shape[0], width, height):
                raise ValueError(
                    f"synthesize: the {name} is {array.shape[1]}x{array.shape[0]}; expected the "
                    f"aspect ratio of {width}x{height}; crop it first"
                )
        classes = self.unet.config.classes
        beyond = [int(i) for i in np.unique(label) if not 0 <= i < classes and i != 255]
        if beyond:
            raise ValueError(
                f"synthesize: the label holds ids {beyond[:8]}; expected 0 to {classes - 1}, or "
                "255 where nothing is known"
            )

    def _encoded(self, images):
        # One at a time: the autoencoder's memory does not grow with the batch.
        with jt.no_grad():
            latents = [self.autoencoder.encode(jt.array(image[None])) for image in images]
            jt.sync(latents)
            return jt.concat(latents, dim=0)

    def _decoded(self, z) -> List[np.ndarray]:
        with jt.no_grad():
            return [self.autoencoder.decode(z[i : i + 1]).numpy()[0] for i in range(z.shape[0])]

    def _handed_over(
        self, decoded: List[np.ndarray], finished: List[np.ndarray]
    ) -> List[np.ndarray]:
        if self.pipeline.float_handoff:
            return [np.clip(image, -1, 1) for image in decoded]
        # The release writes every stage as a JPEG and reads it back; here the same in memory.
        return [to_signed(jpeg_round_trip(image)) for image in finished]

    def _recoloured(self, image: np.ndarray, reference: np.ndarray) -> np.ndarray:
        if self.pipeline.float_handoff:
            return np.clip(transfer_signed(image, reference), -1, 1)
        return to_signed(jpeg_round_trip(transfer(from_signed(image), reference)))


def _noise(seed: int, stems: Sequence[str], shape, stage) -> np.ndarray:
    """Every image's own noise at a stage, or at one of its steps: float32 [B, *shape]."""
    return np.stack([normal(seed, stem, stage, tuple(shape)) for stem in stems])
