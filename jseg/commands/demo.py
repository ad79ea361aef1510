"""Run the whole IIDM pipeline on procedural landscapes with small untrained networks, to see that everything works here.

Writes a data folder in the challenge's layout, two small weight files and the results, each stage included, in one contact sheet.
The networks are untrained (their weights are a fixed recipe), so the pictures made are noise;
what is shown is the machinery: reading, checking, three stages, colour transfer, resuming, the sheet.

Examples:
  python scripts/demo.py
  python scripts/demo.py --output somewhere --count 6
"""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import List, Optional

from jseg.commands import cli

WIDTH, HEIGHT = 256, 192
STAGES = {"base": "fine", "stages": [
    {"guidance": 3.5, "respacing": "ddim50", "start_index": 8},
    {"guidance": 3.7, "respacing": "ddim50", "start_index": 8, "color_transfer": True},
    {"guidance": 3.7, "respacing": "ddim50", "start_index": 5, "color_transfer": True}]}


def parser():
    p = cli.make_parser("demo", __doc__)
    p.add_argument("--output", default="demo", help="folder for data, weights and results (default ./demo)")
    p.add_argument("--count", type=int, default=3, help="number of pictures (default 3)")
    p.add_argument("--seed", type=int, default=0, help="seed of the landscapes and of the noise (default 0)")
    return p


def main(argv: Optional[List[str]] = None) -> int:
    """Prepare data and weights, then call the test command as a user would."""
    args = parser().parse_args(argv)
    if args.count < 1 or args.seed < 0:
        raise ValueError(f"--count {args.count} --seed {args.seed}: expected a count of 1 or more and a seed of 0 or more")
    folder = Path(args.output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output {folder} is a file; expected a folder, which is created if missing")
    from jseg import procedural
    from jseg.atomic import write_atomic
    from jseg.commands import test
    folder.mkdir(parents=True, exist_ok=True)
    _tell(f"drawing {args.count} landscapes into {folder / 'data'}")
    procedural.write_challenge(folder / "data", args.count, args.seed, WIDTH, HEIGHT)
    model, autoencoder = _write_weights(folder / "weights")
    stages = folder / "stages.json"
    write_atomic(stages, lambda file: file.write(json.dumps(STAGES, indent=1).encode()))
    call = ["--input_path", str(folder / "data" / "test"), "--img_path", str(folder / "data" / "train"), "--output_path",
            str(folder / "results"), "--model_path", str(model), "--ae_path", str(autoencoder), "--stages", str(stages),
            "--seed", str(args.seed), "--grid"]
    _tell("python scripts/test.py " + " ".join(call))
    test.main(call)
    _tell(f"look at {folder / 'results' / 'grid.png'}; the networks are untrained, so the pictures are noise: give trained weights with "
          f"--model_path and --ae_path to scripts/test.py")
    return 0


def _write_weights(folder: Path):
    """Small networks with the recipe's weights -> their two files."""
    import dataclasses

    from jseg.checkpoint import save
    from jseg.ldm.layout import autoencoder_shapes, unet_shapes
    from jseg.ldm.presets import AUTOENCODERS, UNETS
    from jseg.ldm.recipe import fill
    autoencoder = AUTOENCODERS["small"]
    unet = dataclasses.replace(UNETS["small"], width=WIDTH // autoencoder.downsampling, height=HEIGHT // autoencoder.downsampling)
    folder.mkdir(exist_ok=True)
    paths = folder / "unet_untrained.safetensors", folder / "autoencoder_untrained.safetensors"
    for path, shapes, config in zip(paths, (unet_shapes(unet), autoencoder_shapes(autoencoder)), (unet, autoencoder)):
        save(path, fill(shapes), config)
    return paths


def _tell(message: str) -> None:
    print(f"jseg demo: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.run(main))
