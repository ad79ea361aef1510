"""FlowSeg inference: an image of any size becomes a label map, or a map of class probabilities.

The image is scaled to the size of the network's training crops, with further windows along what is
longer (`jseg.flowseg.windows`). Each window flows from its source to codes. The probabilities of
the codes' classes are joined and resized to the image, and each pixel gets its likeliest class.
Averages over mirrored images and over noises are of probabilities, never of codes: a mean of two
codes may lie next to a third class.
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
from jseg.flowseg.likeliest import interpolated, likeliest
from jseg.flowseg.pixnerd import PixNerd
from jseg.flowseg.state_dict import not_as_described
from jseg.flowseg.windows import Band, Combine, Size, bands, resized, scaled_size
from jseg.images import resize_image, to_signed
from jseg.nn.precision import use as use_precision
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
    source has some; several are averaged. scale: the image's size, as a multiple of the smallest
    at which it covers a window; 2 looks twice as close, None keeps the image's own size. overlap:
    the fraction of a window that neighbours have in common. batch_size: windows at a time. The
    result depends on these, the image and, with noise, on `stem`, the image's name; not on other
    images. Raises ValueError for options outside these ranges.
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
        config = network.config
        check_options(config, steps, method, mirror, seeds, scale, overlap, batch_size, shift)
        self.times = ode.times(steps, shift)
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
        precision: Optional[str] = None,
        **options,
    ) -> "Segmenter":
        """Load a network of `train_flowseg`, strictly, its moving average where there is one.

        device, precision: those of the process from then on, precision a key of
        `nn.precision.PRECISIONS`, None for tf32 on CUDA and float32 on the CPU. shift: None for
        that of the training's times, where the network has learnt most, if the
        file has it. options: of the class. Raises FileNotFoundError, or CheckpointError in one line
        for a file that is broken or of another kind of network.
        """
        weights = describe(path)
        config = network_config(weights)
        use_precision(precision, runtime.device(device))
        network = PixNerd(config)
        network.explain_mismatch = not_as_described
        load_into(network, weights)
        times = trained_shift(weights) if shift is None else shift
        return cls(network, steps, shift=times, **options)

    @property
    def window(self) -> Size:
        """(width, height) of what the network sees at a time, the size of its training crops."""
        return self.network.config.width, self.network.config.height

    def segment(self, image: np.ndarray, stem: str = "x") -> np.ndarray:
        """The class 0 ... N - 1 of each pixel, int32 [H, W], of an image uint8 [H, W, 3] RGB.

        The image may have any size from one patch of the network on. Raises ValueError for a
        smaller one and for other arrays.
        """
        height, width = self._checked(image)

        # One window and nothing to average: the same without probabilities.
        one_window = self._size(image) == self.window == (width, height)
        if one_window and not self.mirror and len(self.seeds) == 1:
            (x,) = self._flow([to_signed(image)], [(self.seeds[0], "0-0", stem)])
            return decode(x, self.codes)

        labels = np.empty((height, width), np.int32)
        for first, strip in self._strips(image, stem, likeliest):
            labels[first : first + len(strip)] = strip
        return labels

    def probabilities(self, image: np.ndarray, stem: str = "x") -> np.ndarray:
        """The probability of each class for each pixel, float32 [N, H, W]; image and errors as of
        `segment`.
        """
        probabilities = np.empty((len(self.codes),) + self._checked(image), np.float32)
        for first, band in self._strips(image, stem, interpolated):
            probabilities[:, first : first + band.shape[1]] = band
        return probabilities

    def _size(self, image: np.ndarray) -> Size:
        return scaled_size((image.shape[1], image.shape[0]), self.window, self.scale)

    def _checked(self, image: np.ndarray) -> Tuple[int, int]:
        """The image's (height, width)."""
        pixels, patch = np.asarray(image), self.network.config.patch
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(
                f"segment: an image of shape {list(pixels.shape)} and type {pixels.dtype}; "
                "expected uint8 [H, W, 3] RGB"
            )
        height, width = pixels.shape[:2]
        if min(height, width) < patch:
            raise ValueError(
                f"segment: the image is {width}x{height}; expected at least {patch}x{patch}, one "
                "patch of the network"
            )
        return height, width

    def _strips(self, image: np.ndarray, stem: str, combine: Combine) -> Iterator[Band]:
        """What `combine` makes of the probabilities at the image's size, from top to bottom."""
        size = self._size(image)
        signed = to_signed(resize_image(image, *size))  # [3, h, w]
        predict = functools.partial(self._windows, signed, stem)
        joined = bands(size, self.window, self.overlap, predict)
        return resized(joined, size, (image.shape[1], image.shape[0]), combine)

    def _windows(
        self, signed: np.ndarray, stem: str, places: Sequence[Tuple[int, int]]
    ) -> Iterator[np.ndarray]:
        """The mean probabilities [N, h, w] of the windows at (left, top), one after the other."""
        width, height = self.window
        mirrors = (False, True) if self.mirror else (False,)
        views = [(seed, mirrored) for seed in self.seeds for mirrored in mirrors]
        jobs = [(place, *view) for place in places for view in views]

        total, count = 0.0, 0
        for start in range(0, len(jobs), self.batch_size):
            batch = jobs[start : start + self.batch_size]

            # The ends of the flows of a batch of windows.
            crops, noises = [], []
            for (left, top), seed, mirrored in batch:
                crop = signed[:, top : top + height, left : left + width]
                crops.append(crop[:, :, ::-1] if mirrored else crop)
                noises.append((seed, f"{left}-{top}" + ("-mirrored" if mirrored else ""), stem))
            ends = self._flow(crops, noises)

            # Views follow each other, so a window is complete after as many as there are.
            for (_, _, mirrored), x in zip(batch, ends):
                probabilities = assignment(x, self.codes)
                total = total + (probabilities[:, :, ::-1] if mirrored else probabilities)
                count += 1
                if count == len(views):
                    yield total / np.float32(count)
                    total, count = 0.0, 0

    def _flow(self, crops: List[np.ndarray], noises: Sequence[Tuple[int, str, str]]) -> np.ndarray:
        """The ends of the flows, float32 [b, 3, h, w], of windows [3, h, w]; noises: the (seed,
        stage, stem) of each.
        """
        kind, images, noise = self.network.config.source, np.stack(crops), None
        if "noise" in kind:
            noise = np.stack(
                [normal(seed, stem, stage, crops[0].shape) for seed, stage, stem in noises]
            )
        with jt.no_grad():
            # The image is embedded once for all steps.
            network, solver = self.network, ode.METHODS[self.method]
            condition = network.condition(images) if network.config.sees_image else None
            x = source(kind, images, noise)
            for x in solver(lambda x, t: network(x, t, condition), x, self.times):
                pass
            return x.numpy()


def check_options(
    config: PixNerdConfig,
    steps: int,
    method: str,
    mirror: bool,
    seeds: Sequence[int],
    scale: Optional[float],
    overlap: float,
    batch_size: int,
    shift: float,
) -> None:
    """Raise ValueError for options that no `Segmenter` of such a network takes."""
    del mirror  # takes either value
    ode.times(steps, shift)
    if method not in ode.METHODS:
        raise ValueError(f"method {method!r}; choose one of {', '.join(ode.METHODS)}")

    # The noise that the flow starts from.
    if not seeds or len(set(map(check_seed, seeds))) < len(seeds):
        raise ValueError(f"seeds {list(seeds)}; expected one, or several different ones")
    if len(seeds) > 1 and "noise" not in config.source:
        raise ValueError(
            f"{len(seeds)} seeds, but this network's flow starts from the image alone: all "
            "would give the same; give one"
        )

    # The windows.
    if scale is not None and not scale >= 1:
        raise ValueError(
            f"scale {scale}; expected 1, at which the image covers a window, or more; or None for "
            "the image's own size"
        )
    if not 0 <= overlap < 1 or batch_size < 1:
        raise ValueError(
            f"overlap {overlap}, batch_size {batch_size}; expected 0 to below 1, and 1 or more"
        )


def network_config(path) -> PixNerdConfig:
    """The network in a weight file, for checking inputs before the weights.

    Raises FileNotFoundError, or CheckpointError for a file that holds none of FlowSeg's networks.
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
        other = "weights without a network's description"
        if config:
            other = f"a network described by {type(config).__name__}"
        raise CheckpointError(
            f"{path} holds {other}; expected a file that train_flowseg wrote (--weights "
            "OUTPUT/best.safetensors)"
        )
    return config


def trained_classes(path, count: int) -> ClassSet:
    """Names and colours of the classes that the weights in a file were trained on, or made-up ones
    where it does not say.
    """
    classes = _stored(describe(path).settings.get("classes"))
    if classes is None or len(classes) != count or classes.palette.shape != (count, 3):
        names = tuple(f"class {i}" for i in range(count))
        return ClassSet(f"{count} classes", names, spread_palette(count))
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


def _stored(record) -> Optional[ClassSet]:
    """The inverse of `stored_classes`; None for anything else."""
    try:
        palette = np.array(record["palette"], np.int64).clip(0, 255).astype(np.uint8)
        return ClassSet(str(record["name"]), tuple(map(str, record["names"])), palette)
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def stored_classes(classes: ClassSet) -> dict:
    """What `trained_classes` reads, for a training's settings."""
    return {"name": classes.name, "names": list(classes.names), "palette": classes.palette.tolist()}
