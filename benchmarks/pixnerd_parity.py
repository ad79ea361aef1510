"""Our PixNerd beside the official class (MCG-NJU/PixNerd, src/models/transformer/pixnerd_c2i.py)
under equal weights and inputs.

The official class runs in a Python that has PyTorch, on its CPU in float32. Weights come from the
recipe of jseg.parity.stand_in, so no checkpoint is needed. Names and shapes, outputs, and the
gradients of sum(out^2) to x and to every parameter are compared: the largest difference over the
largest value of the array, and of all gradients the worst. Gradients below 1e-6 of the largest one
are zero but for rounding and are left out. L/16, with 452 million parameters, takes some 6 GB and a
minute.

  git clone https://github.com/MCG-NJU/PixNerd
  python benchmarks/pixnerd_parity.py --official PixNerd --python /path/to/a/python/with/torch
  python benchmarks/pixnerd_parity.py --official PixNerd --cases L/16
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = "src/models/transformer/pixnerd_c2i.py"
TOLERANCE, FLOOR = 1e-4, 1e-6
SMALL = dict(
    hidden_size=64, heads=4, depth=2, pixel_blocks=1, pixel_channels=16, patch=8, classes=10
)
THREE = dict(
    hidden_size=96, heads=3, depth=3, pixel_blocks=2, pixel_channels=32, patch=16, classes=7
)
WIDE = dict(
    hidden_size=1024, heads=16, depth=2, pixel_blocks=2, pixel_channels=64, patch=16, classes=1000
)
CASES = {
    # name: (configuration, height, width, images, gradients too)
    "small": (SMALL, 32, 32, 2, True),
    "small, wide image": (SMALL, 24, 80, 2, True),
    "small, one patch": (SMALL, 8, 8, 2, True),
    "three heads, patch 16": (THREE, 64, 48, 2, True),
    "XL's heads of 72": ({**SMALL, "hidden_size": 144, "heads": 2, "patch": 16}, 64, 64, 2, True),
    "two blocks of L/16": (WIDE, 256, 256, 1, True),
    "L/16": ({**WIDE, "depth": 22}, 256, 256, 1, False),
    "XL/16": ({**WIDE, "hidden_size": 1152, "depth": 26, "pixel_blocks": 4}, 256, 256, 1, False),
}
QUICK = [name for name in CASES if "/16" not in name or "blocks" in name]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--official", required=True, help="folder of a clone of MCG-NJU/PixNerd")
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="a Python with PyTorch and NumPy (default: this one)",
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        default=QUICK,
        choices=list(CASES),
        metavar="NAME",
        help=f"of: {'; '.join(CASES)}",
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    source = Path(args.official) / SOURCE
    if not source.is_file():
        sys.exit(f"{source} is missing; expected a clone of MCG-NJU/PixNerd")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    if args.child:
        return official(source, *args.child)
    print("| case | size | parameters | output | gradients, worst |\n|---|---|---|---|---|")
    failed = [name for name in args.cases if not row(name, args)]
    if failed:
        sys.exit(f"above {TOLERANCE}: {', '.join(failed)}")


def inputs(name):
    import numpy as np

    config, height, width, images, _ = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, 3, height, width), dtype=np.float32)
    return (
        x,
        rng.random(images, dtype=np.float32),
        rng.integers(0, config["classes"] + 1, images),
    )


def official(source, name, path):
    """Run in the Python that has PyTorch: the official class's names, shapes, output and gradients
    into `path`.
    """
    import importlib.util

    import numpy as np
    import torch

    from jseg.parity.stand_in import value

    spec = importlib.util.spec_from_file_location("pixnerd_c2i", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config, _, _, _, gradients = CASES[name]
    network = module.PixNerDiT(
        in_channels=3,
        num_groups=config["heads"],
        hidden_size=config["hidden_size"],
        nerf_mlpratio=2,
        hidden_size_x=config["pixel_channels"],
        num_blocks=config["depth"] + config["pixel_blocks"],
        num_cond_blocks=config["depth"],
        patch_size=config["patch"],
        num_classes=config["classes"],
    )
    with torch.no_grad():
        for key, parameter in network.state_dict().items():
            parameter.copy_(torch.from_numpy(value(key, tuple(parameter.shape))))
    x, t, labels = (torch.from_numpy(array) for array in inputs(name))
    x.requires_grad_(gradients)
    with torch.set_grad_enabled(gradients):
        out = network(x, t, labels)
    arrays = {
        "out": out.detach().numpy(),
        "layout": json.dumps({key: list(v.shape) for key, v in network.state_dict().items()}),
    }
    if gradients:
        (out * out).sum().backward()
        arrays.update(
            {"gradient:x": x.grad.numpy()},
            **{f"gradient:{key}": p.grad.numpy() for key, p in network.named_parameters()},
        )
    np.savez(path, **arrays)


def ours(name):
    """The same arrays from our network."""
    from jseg.configs import PixNerdConfig
    from jseg.flowseg.pixnerd import PixNerd
    from jseg.parity.stand_in import value
    from jseg.runtime import jt

    config, _, _, _, gradients = CASES[name]
    network = PixNerd(PixNerdConfig(**config))
    state = network.state_dict()
    for key, parameter in state.items():
        parameter.assign(jt.array(value(key, parameter.shape)))
    x, t, labels = inputs(name)
    x = jt.array(x)
    arrays = {"layout": json.dumps({key: list(v.shape) for key, v in state.items()})}
    if not gradients:
        with jt.no_grad():
            return {**arrays, "out": network(x, t, labels=labels).numpy()}
    out = network(x, t, labels=labels)
    targets = {"x": x, **state}
    slopes = jt.grad((out * out).sum(), list(targets.values()), retain_graph=False)
    arrays.update({f"gradient:{key}": slope.numpy() for key, slope in zip(targets, slopes)})
    return {**arrays, "out": out.numpy()}


def row(name, args):
    """Print a case's row; whether it is within the tolerance."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "official.npz")
        subprocess.run(
            [args.python, __file__, "--official", args.official, "--child", name, path], check=True
        )
        theirs = dict(np.load(path))
    mine = ours(name)
    layout = json.loads(mine["layout"])
    if layout != json.loads(str(theirs.pop("layout"))):
        sys.exit(f"{name}: names or shapes differ")
    output = difference(mine["out"], theirs.pop("out"))
    largest = {key: np.abs(array).max() for key, array in theirs.items()}
    floor = FLOOR * max(largest.values(), default=0)
    differences = [difference(mine[key], theirs[key]) for key in theirs if largest[key] > floor]
    worst = max(differences, default=None)
    parameters = sum(int(np.prod(shape)) for shape in layout.values())
    print(
        f"| {name} | {CASES[name][2]}x{CASES[name][1]} | {len(layout)} tensors, {parameters:,} | "
        f"{output:.1e} | {'-' if worst is None else f'{worst:.1e}'} |",
        flush=True,
    )
    return output < TOLERANCE and (worst is None or worst < TOLERANCE)


def difference(a, b):
    import numpy as np

    return float(np.abs(a - b).max() / np.abs(b).max())


if __name__ == "__main__":
    main()
