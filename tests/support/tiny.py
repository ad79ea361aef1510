"""A tiny challenge folder, tiny networks under the weights recipe and a tiny pipeline, for the
tests of the inference command.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from support.calls import called, everything, words

from jseg import checkpoint
from jseg.commands import test as command
from jseg.images import save_image
from jseg.ldm.presets import AUTOENCODERS, PIPELINES, UNETS, Pipeline, Stage
from jseg.ldm.state_dict import autoencoder_shapes, unet_shapes
from jseg.parity.stand_in import fill

WIDTH, HEIGHT = 64, 48
STAGES = {
    "base": "release",
    "stages": [
        {"guidance": 3.5, "respacing": "ddim10", "start_index": 2},
        {"guidance": 3.7, "respacing": "ddim10", "start_index": 2, "color_transfer": True},
    ],
}
_TWO = (Stage(3.5, "ddim10", 2), Stage(3.7, "ddim10", 2, color_transfer=True))
RELEASE = Pipeline(
    _TWO,
    aligned=False,
    float_handoff=False,
    rounding="truncate",
    jpeg_quality=75,
    jpeg_subsampling="4:2:0",
)
FINE = Pipeline(_TWO, aligned=True, float_handoff=True, rounding="round")
assert (RELEASE.jpeg_quality, FINE.jpeg_quality) == (
    PIPELINES["release"].jpeg_quality,
    PIPELINES["fine"].jpeg_quality,
)


def label_map(seed, width=WIDTH, height=HEIGHT):
    rows, columns = np.mgrid[:height, :width]
    return np.random.default_rng(seed).integers(0, 29, (6, 8), dtype=np.uint8)[
        rows * 6 // height, columns * 8 // width
    ]


def photograph(seed, width=WIDTH, height=HEIGHT):
    rows, columns = np.mgrid[:height, :width]
    ramps = np.stack(
        [rows * 255 // height, columns * 255 // width, (rows + columns) * 255 // (width + height)],
        axis=-1,
    )
    return ((ramps + np.random.default_rng(seed).integers(0, 256, 3)) % 256).astype(np.uint8)


class Challenge:
    """A folder in the challenge's layout under `root`, and the command's arguments for it; `run`
    returns (exit code, stderr's lines).
    """

    def __init__(self, root, weights, capsys):
        self.root, self.capsys = Path(root), capsys
        self.labels = self.root / "test" / "val_B_labels_resized"
        self.references = self.root / "train" / "imgs"
        self.output, self.table = self.root / "results", self.root / "test" / "label_to_img.json"
        self.stages = self.root / "stages.json"
        self.model, self.autoencoder = weights
        self.labels.mkdir(parents=True)
        self.references.mkdir(parents=True)
        self.stages.write_text(json.dumps(STAGES))

    def fill(self, *stems):
        """A label map and a reference for every stem; the table names them all."""
        for stem in stems:
            seed = zlib.crc32(stem.encode())
            save_image(self.labels / f"{stem}.png", label_map(seed))
            save_image(self.references / f"ref_{stem}.jpg", photograph(seed))
        self.table.write_text(
            json.dumps(
                {f"{path.stem}.png": f"ref_{path.stem}.jpg" for path in self.labels.glob("*.png")}
            )
        )
        return self

    def options(self, **changed):
        options = dict(
            input_path=self.root / "test",
            img_path=self.root / "train",
            output_path=self.output,
            model_path=self.model,
            ae_path=self.autoencoder,
            stages=self.stages,
            batch_size=2,
            device="cpu",
        )
        return {**options, **changed}

    def arguments(self, **changed):
        return words(**self.options(**changed))

    def run(self, **changed):
        return called(command, self.capsys, **self.options(**changed))

    def results(self, output=None):
        """{name: bytes} of every image in the output folder."""
        return {
            path.name: path.read_bytes()
            for path in sorted(Path(output or self.output).glob("*.jpg"))
        }

    def everything(self):
        """Every file and folder under the root with its bytes: equal snapshots mean that nothing
        was written.
        """
        return everything(self.root)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """(UNet file, autoencoder file) of the tiny networks, each carrying its configuration."""
    folder = tmp_path_factory.mktemp("weights")
    return (
        saved(folder / "unet.safetensors", UNETS["tiny"]),
        saved(folder / "autoencoder.safetensors", AUTOENCODERS["tiny"]),
    )


@pytest.fixture
def challenge(tmp_path, weights, capsys):
    return Challenge(tmp_path, weights, capsys).fill("c", "a", "b")


@pytest.fixture
def stubbed(monkeypatch):
    """Synthesis without networks: each image depends on seed, stem and the whole batch it is made
    in; the batches are recorded.
    """
    from jseg.ldm import refine

    made = []

    def run(self, labels, references, seed, stems):
        made.append(list(stems))
        count = len(self.pipeline.stages)
        for stage in range(count):
            yield refine.Progress(stage, 1, 1)
            images = [
                photograph(zlib.crc32(f"{seed} {stem} {stage} {stems}".encode())) for stem in stems
            ]
            yield refine.Progress(stage, 1, 1, images)

    class Config:
        width, height, classes, downsampling = 16, 12, 29, 4

    class Network:
        config = Config()

    def from_files(model_path, ae_path, pipeline, device, memory, precision):
        synthesizer = object.__new__(refine.Synthesizer)
        synthesizer.unet = synthesizer.autoencoder = Network()
        synthesizer.pipeline = pipeline
        return synthesizer

    monkeypatch.setattr(refine.Synthesizer, "run", run)
    monkeypatch.setattr(refine.Synthesizer, "from_files", staticmethod(from_files))
    return made


def saved(path, config, named=True, **changed):
    """The path of a weights file made for that configuration, which it carries if `named`;
    `changed` arrays replace the recipe's.
    """
    shapes = (
        unet_shapes(config) if type(config).__name__ == "UNetConfig" else autoencoder_shapes(config)
    )
    checkpoint.save(path, {**fill(shapes), **changed}, config if named else None)
    return path
