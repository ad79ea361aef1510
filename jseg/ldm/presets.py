"""The tables of the latent-diffusion branch: networks and inference pipelines, one row per
published or shipped model.

Rows are frozen dataclasses; `dataclasses.replace(UNETS["release"], channels=32, head_channels=16)`
makes a variant. Mirrors `create_argparser` of the official image_sample.py,
config/config-jittor.yaml and the three commands of test.py.
"""

from dataclasses import dataclass
from typing import Tuple

from jseg.configs import AutoencoderConfig, UNetConfig

# The samplers that a stage may name (jseg/ldm/samplers.py), each with the eta that its name stands
# for, or None where the stage says it.
SAMPLER_ETA = {"ddim": None, "ancestral": 1.0, "dpmpp_2m": None, "dpmpp_2m_sde": 1.0}


@dataclass(frozen=True)
class Stage:
    """One round of encode, noise, denoise, decode; every round after the first starts from the
    image before it.
    """

    guidance: float  # classifier-free guidance scale; <= 1 runs unguided
    respacing: str  # "ddim500", "ddim50", ... or "" for all 1000 steps
    start_index: int  # index into the respaced steps at which noise is added
    color_transfer: bool = False  # give the image the reference's colours before encoding
    eta: float = 0.0  # of ddim and dpmpp_2m; 0: deterministic, 1: as noisy as the process itself
    sampler: str = "ddim"  # one of SAMPLER_ETA
    steps: int = 0  # denoising steps; 0: every respaced step from the start index down
    spacing: str = "uniform"  # which of the respaced steps those are: Schedule.visited
    guidance_low: int = 0  # guided from this original timestep ...
    guidance_high: int = 999  # ... to this one; elsewhere the conditional pass alone


@dataclass(frozen=True)
class Pipeline:
    """The stages and how they hand over to each other."""

    stages: Tuple[Stage, ...]
    aligned: bool  # True: denoise from the index noised at; False: one below it
    float_handoff: bool  # True: float images between stages; False: JPEG, as the release
    rounding: str  # "round", or "truncate" as the release
    jpeg_quality: int = 95  # of the written result
    jpeg_subsampling: str = "4:4:4"


UNETS = {
    "release": UNetConfig(),  # 501,540,358 parameters; average-176k-266k.pkl
    "landscape": UNetConfig(
        channels=64,
        channel_mult=(1, 2, 2),
        blocks=1,
        attention_downsampling=(4,),
        head_channels=64,
        spade_channels=32,
        width=32,
        height=24,
    ),  # jseg/weights/unet.safetensors, images of 128x96
    "small": UNetConfig(channels=32, head_channels=16),
    "tiny": UNetConfig(
        channels=32,
        channel_mult=(1, 2),
        blocks=1,
        attention_downsampling=(2,),
        head_channels=16,
        spade_channels=16,
        width=16,
        height=12,
    ),
}

AUTOENCODERS = {
    "release": AutoencoderConfig(),  # 55,322,782 parameters; VQ-f4, autoencoder.pkl
    "landscape": AutoencoderConfig(
        channels=32, blocks=1, codebook_size=4096, groups=8
    ),  # jseg/weights/autoencoder.safetensors
    "small": AutoencoderConfig(channels=32, codebook_size=256),
    "tiny": AutoencoderConfig(channels=32, channel_mult=(1, 1, 1), blocks=1, codebook_size=64),
}

_RELEASE_STAGES = (
    Stage(guidance=3.5, respacing="ddim500", start_index=300),
    Stage(guidance=3.7, respacing="ddim500", start_index=320, color_transfer=True),
    Stage(guidance=3.7, respacing="ddim50", start_index=20, color_transfer=True),
)

_FINE = {"respacing": "", "sampler": "dpmpp_2m", "spacing": "quadratic"}
_FINE_STAGES = (
    Stage(guidance=3.5, start_index=600, steps=8, **_FINE),
    Stage(guidance=3.7, start_index=640, steps=12, color_transfer=True, **_FINE),
    Stage(guidance=3.7, start_index=400, steps=12, color_transfer=True, **_FINE),
)

PIPELINES = {
    # Number by number what the official test.py does, JPEG hand-off and all: 1,280 UNet forwards an
    # image.
    "release": Pipeline(
        _RELEASE_STAGES,
        aligned=False,
        float_handoff=False,
        rounding="truncate",
        jpeg_quality=75,
        jpeg_subsampling="4:2:0",
    ),
    # The same noise levels and guidance, denoised from the level that the noise has, nothing lost
    # between the stages: 64 UNet forwards, chosen from the curve in docs/samplers.md.
    "fine": Pipeline(_FINE_STAGES, aligned=True, float_handoff=True, rounding="round"),
}
