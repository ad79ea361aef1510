"""FlowSeg inference: an image of any size becomes a label map, or a map of class probabilities.

The image is scaled to the size of the network's training crops (`jseg.flowseg.windows` for what
is longer), each window flows from its source to codes, and the probabilities of the codes' classes
are joined, resized to the image and their largest taken. Averages over mirrored images and over
noises are of probabilities, never of codes: a mean of two codes may lie next to a third class.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np

from jseg import runtime
from jseg.checkpoint import CheckpointError, describe, load_into
from jseg.configs import PixNerdConfig
from jseg.data.classes import ClassSet, spread_palette
from jseg.flowseg import ode
from jseg.flowseg.encoding import assignment, class_codes, decode
from jseg.flowseg.field import source
from jseg.flowseg.pixnerd import PixNerd
from jseg.flowseg.windows import Band, Size, bands, resized, scaled_size
from jseg.images import resize_image, to_signed
from jseg.noise import check_seed, normal
from jseg.runtime import jt

STEPS = 10  # best in the paper, second-hand
OVERLAP = 1 / 3  # of neighbouring windows
SHIPPED = Path(__file__).resolve().parent.parent / "weights" / "flowseg.safetensors"


class Segmenter:
    """A network ready to segment images: Segmenter.from_file(path).segment(image uint8 [H, W,
    3]) -> labels int32 [H, W].

    steps: of the flow, by `method` (euler, heun or adams2), at the times of `ode.times(steps,
    shift)`. mirror: average with the mirrored image. seeds: of the noise, for networks whose
    source has some; several are averaged. scale: times the smallest size at which the image
    covers a window; 2 looks twice as close, None keeps the image's own size. overlap: of
    neighbouring windows. batch_size: windows at a time. The result depends on these, the image
    and, with noise, on `stem`, the image's name; not on other images.
    """

    def __init__(
        self,
        network: PixNerd,
        steps: int = STEPS,
        method: str = "euler",
        mirror: bool = False,
        seeds: Sequence[int] = (0,),
        scale: Optional[float] = 1.0,
        overlap: float = OVERLAP,
        batch_size: int = 1,
        shift: float = 1.0,
    ):
        config, self.times = network.config, ode.times(steps, shift)
        if method not in ode.METHODS:
            raise ValueError(f"method {method!r}; choose one of {', '.join(ode.METHODS)}")
        if not seeds or len(set(map(check_seed, seeds))) < len(seeds):
            raise ValueError(f"seeds {list(seeds)}; expected one, or several different ones")
        if len(seeds) > 1 and "noise" not in config.source:
            raise ValueError(
                f"{len(seeds)} seeds, but this network's flow starts from the image alone: all "
                "would give the same; give one"
            )
        if scale is not None and not scale >= 1:
            raise ValueError(
                f"scale {scale}; expected 1, at which the image covers a window, or more; or "
                "None for the image's own size"
            )
        if not 0 <= overlap < 1 or batch_size < 1:
            raise ValueError(
                f"overlap {overlap}, batch_size {batch_size}; expected 0 to below 1, and 1 or more"
            )
        self.network, self.method, self.mirror, self.seeds = network, method, mirror, tuple(seeds)
        self.scale, self.overlap, self.batch_size = scale, overlap, batch_size
        self.codes = class_codes(config.labels, config.codes)
        network.eval()

    @classmethod
    def from_file(
        cls,
        path,
        steps: int = STEPS,
        device: str = "auto",
        shift: Optional[float] = None,
        **options,
    ) -> "Segmenter":
        """Load a network of `train_flowseg`, strictly, its moving average where there is one;
        options as of the class.

        shift: None for that of the training's times, if the file tells it: the network knows best
        where it has been taught most. Raises FileNotFoundError or CheckpointError in one line for a
        file that is missing, broken or of another kind of network.
        """
        weights = describe(path)
        config = network_config(weights)
        runtime.device(device)
        network = PixNerd(config)
        load_into(network, weights)
        times = trained_shift(weights) if shift is None else shift
        return cls(network, steps, shift=times, **options)

    @property
    def window(self) -> Size:
        """(width, height) of what the network sees at a time, the size of its training crops."""
        return self.network.config.width, self.network.config.height

    def segment(self, image: np.ndarray, stem: str = "x") -> np.ndarray:
        """int32 [H, W], each pixel's class 0 ... N - 1, of an image uint8 [H, W, 3] RGB of any
        size.

        Raises ValueError for other arrays and for an image smaller than one patch of the network.
        """
        height, width = self._checked(image)
        if (
            self._size(image) == self.window == (width, height)
            and not self.mirror
            and len(self.seeds) == 1
        ):
            return decode(
                self._flowed([to_signed(image)], [(self.seeds[0], "0-0", stem)])[0], self.codes
            )  # the same, sooner
        labels = np.empty((height, width), np.int32)
        for first, band in self._bands(image, stem):
            labels[first : first + band.shape[1]] = band.argmax(0)
        return labels

    def probabilities(self, image: np.ndarray, stem: str = "x") -> np.ndarray:
        """float32 [N, H, W], the probability of each class for each pixel of an image uint8 [H, W,
        3] RGB; errors as of `segment`.
        """
        found = np.empty((len(self.codes),) + self._checked(image), np.float32)
        for first, band in self._bands(image, stem):
            found[:, first : first + band.shape[1]] = band
        return found

    def _size(self, image: np.ndarray) -> Size:
        return scaled_size((image.shape[1], image.shape[0]), self.window, self.scale)

    def _checked(self, image: np.ndarray) -> Tuple[int, int]:
        image, patch = np.asarray(image), self.network.config.patch
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"segment: an image of shape {list(image.shape)} and type {image.dtype}; "
                "expected uint8 [H, W, 3] RGB"
            )
        if min(image.shape[:2]) < patch:
            raise ValueError(
                f"segment: the image is {image.shape[1]}x{image.shape[0]}; expected at least "
                f"{patch}x{patch}, one patch of the network"
            )
        return image.shape[0], image.shape[1]

    def _bands(self, image: np.ndarray, stem: str) -> Iterator[Band]:
        """Probabilities at the image's size, from top to bottom."""
        size = self._size(image)
        signed = to_signed(resize_image(image, *size))
        joined = bands(
            size, self.window, self.overlap, functools.partial(self._windows, signed, stem)
        )
        return resized(joined, size, (image.shape[1], image.shape[0]))

    def _windows(
        self, signed: np.ndarray, stem: str, places: Sequence[Tuple[int, int]]
    ) -> Iterator[np.ndarray]:
        """The mean probabilities [N, h, w] of the windows at (left, top), in turn."""
        width, height = self.window
        ways = [
            (seed, mirrored) for seed in self.seeds for mirrored in (False, True)[: 1 + self.mirror]
        ]
        jobs = [(number,) + way for number in range(len(places)) for way in ways]
        total, count = 0.0, 0
        for start in range(0, len(jobs), self.batch_size):
            chosen = jobs[start : start + self.batch_size]
            crops, noises = [], []
            for number, seed, mirrored in chosen:
                left, top = places[number]
                crop = signed[:, top : top + height, left : left + width]
                crops.append(crop[:, :, ::-1] if mirrored else crop)
                noises.append((seed, f"{left}-{top}" + ("-mirrored" if mirrored else ""), stem))
            for (_, _, mirrored), point in zip(chosen, self._flowed(crops, noises)):
                found = assignment(point, self.codes)
                total, count = total + (found[:, :, ::-1] if mirrored else found), count + 1
                if count == len(ways):
                    yield total / np.float32(count)
                    total, count = 0.0, 0

    def _flowed(
        self, crops: List[np.ndarray], noises: Sequence[Tuple[int, str, str]]
    ) -> np.ndarray:
        """Where the flow ends, float32 [b, 3, h, w], for windows [3, h, w]; noises: (seed, stage,
        stem) of each.
        """
        config = self.network.config
        images = np.stack(crops)
        noise = (
            np.stack([normal(seed, stem, stage, crops[0].shape) for seed, stage, stem in noises])
            if "noise" in config.source
            else None
        )
        x = source(config.source, images, noise)
        with jt.no_grad():
            fed = (
                self.network.condition(images) if config.sees_image else None
            )  # the image's share, once for all steps
            for x in ode.METHODS[self.method](lambda x, t: self.network(x, t, fed), x, self.times):
                pass
            return x.numpy()


def network_config(path) -> PixNerdConfig:
    """The network in a weights file; raises FileNotFoundError, or CheckpointError for a file that
    holds none of FlowSeg's.
    """
    weights = describe(path)
    config = weights.config
    if isinstance(config, PixNerdConfig) and weights.extra.get("pretrained"):
        raise CheckpointError(
            f"{path} holds PixNerd's own weights as convert_weights wrote them, which make images "
            "of classes and segment nothing; start a training from them (train_flowseg "
            f"--model_path {path}) and give its best.safetensors"
        )
    if not isinstance(config, PixNerdConfig):
        other = (
            f"a network described by {type(config).__name__}"
            if config
            else "weights without a network's description"
        )
        raise CheckpointError(
            f"{path} holds {other}; expected a file that train_flowseg wrote (--weights "
            "OUTPUT/best.safetensors)"
        )
    return config


def trained_classes(path, count: int) -> ClassSet:
    """Names and colours of the classes that the weights in a file were trained on, or made-up ones
    where it does not say.
    """
    try:
        stored = describe(path).settings["classes"]
        palette = np.array(stored["palette"], np.int64)
        classes = ClassSet(
            str(stored["name"]),
            tuple(map(str, stored["names"])),
            palette.clip(0, 255).astype(np.uint8),
        )
    except (LookupError, TypeError, ValueError, OverflowError):
        classes = None
    if classes is None or len(classes) != count or classes.palette.shape != (count, 3):
        return ClassSet(
            f"{count} classes", tuple(f"class {i}" for i in range(count)), spread_palette(count)
        )
    return classes


def trained_shift(path) -> float:
    """The shift of the times t that the weights in a file were trained at (train_flowseg's
    --shift), 1 where it does not say.
    """
    try:
        shift = float(describe(path).settings["shift"])
    except (LookupError, TypeError, ValueError, OverflowError):
        return 1.0
    return shift if 0 < shift < float("inf") else 1.0


def stored_classes(classes: ClassSet) -> dict:
    """What `trained_classes` reads, for a training's settings."""
    return {"name": classes.name, "names": list(classes.names), "palette": classes.palette.tolist()}
