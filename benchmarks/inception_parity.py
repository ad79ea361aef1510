"""Our Inception beside the one of pytorch-fid (mseitzer/pytorch-fid on torchvision) under equal
weights and images, layer by layer.

Theirs runs in a Python that has PyTorch, torchvision and pytorch-fid, on its CPU in float32;
weights are random and scaled to keep the activations' size, or a file's, for instance the public
pt_inception-2015-12-05-6726825d.pth. It compares names and shapes, the resized images, every
layer's activations and the features: the largest difference over the largest value of the array.

  python benchmarks/inception_parity.py --python PYTHON_WITH_PYTORCH_FID
  python benchmarks/inception_parity.py --python PYTHON_WITH_PYTORCH_FID \\
      --weights pt_inception-2015-12-05-6726825d.pth
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOLERANCE = 1e-4
SIZES = ((384, 512), (96, 128), (299, 299))  # of the images, height and width


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="a Python with PyTorch, torchvision and pytorch-fid (default: this one)",
    )
    parser.add_argument("--weights", help="weights to run with (default: random ones)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return official(*args.child)
    import numpy as np

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    with tempfile.TemporaryDirectory() as folder:
        mine = ours(args.weights, Path(folder) / "weights.npz")
        subprocess.run(
            [
                args.python,
                __file__,
                "--child",
                str(Path(folder) / "weights.npz"),
                str(Path(folder) / "theirs.npz"),
            ],
            check=True,
        )
        theirs = dict(np.load(Path(folder) / "theirs.npz"))
    layout = json.loads(str(theirs.pop("layout")))
    if layout != mine.pop("layout"):
        sys.exit("names or shapes differ")
    seconds = mine.pop("seconds"), float(theirs.pop("seconds"))
    print(
        f"{len(layout)} arrays of equal names and shapes, but for fc and the batch norms' counters"
    )
    print("| what | shape | largest value | difference |\n|---|---|---|---|")
    worst = 0.0
    for name, array in theirs.items():
        found = abs(mine[name] - array).max() / abs(array).max()
        worst = max(worst, found)
        print(
            f"| {name} | {'x'.join(map(str, array.shape))} | {abs(array).max():.3g} | {found:.1e} |"
        )
    print(
        f"seconds for {len(SIZES)} images, second pass: {seconds[0]:.2f} here, {seconds[1]:.2f} "
        "there"
    )
    if worst > TOLERANCE:
        sys.exit(f"above {TOLERANCE}")


def images():
    import numpy as np

    rng = np.random.default_rng(0)
    found = []
    for height, width in SIZES:
        coarse = (
            rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
            .repeat(8, 0)
            .repeat(8, 1)[:height, :width]
        )
        found.append(np.clip(coarse + rng.integers(-30, 31, coarse.shape), 0, 255).astype(np.uint8))
    return found


def ours(weights, path):
    """Our arrays by name; the weights, which theirs then load, into `path`."""
    import numpy as np

    from jseg.evaluation.inception import Inception, load_inception, prepared
    from jseg.runtime import jt

    inception, rng = load_inception(weights) if weights else Inception(), np.random.default_rng(1)
    state = inception.state_dict()
    for name, value in {} if weights else state.items():
        shape = tuple(value.shape)
        if len(shape) == 4:
            drawn = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            drawn = (
                rng.uniform(0.5, 1.5, shape)
                if name.endswith(("weight", "running_var"))
                else 0.2 * rng.standard_normal(shape)
            )
        value.assign(jt.array(drawn.astype(np.float32)))
    arrays = {name: value.numpy() for name, value in state.items()}
    np.savez(path, **arrays)
    x = prepared(images())
    inception(x).sync()
    started = time.monotonic()
    found = {"features": inception(x).numpy(), "seconds": time.monotonic() - started, "resized": x}
    found.update((name, activations.numpy()) for name, activations in inception.layers(x))
    return {**found, "layout": {name: list(array.shape) for name, array in arrays.items()}}


def official(weights, path):
    """Run in the Python that has pytorch-fid: its network's names, shapes and activations into
    `path`.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F
    from pytorch_fid import inception as module

    arrays = dict(np.load(weights))

    def loaded(*args, **kwargs):
        return {
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
            "fc.weight": torch.zeros(1008, 2048),
            "fc.bias": torch.zeros(1008),
        }

    module.load_state_dict_from_url = loaded
    whole = module.fid_inception_v3().eval()
    layout = {
        name: list(value.shape)
        for name, value in whole.state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    network, found = module.InceptionV3().eval(), {"layout": json.dumps(layout)}
    with torch.no_grad():
        x = torch.cat(
            [
                F.interpolate(
                    torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255)),
                    size=(299, 299),
                    mode="bilinear",
                    align_corners=False,
                )
                for image in images()
            ]
        )
        found["resized"] = (2 * x - 1).numpy()
        wrapped = [
            network(torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255)))[0]
            for image in images()
        ]
        started = time.monotonic()
        found["features"] = network(x)[0][:, :, 0, 0].numpy()
        found["seconds"] = time.monotonic() - started
        assert np.allclose(
            found["features"], torch.cat(wrapped)[:, :, 0, 0].numpy(), rtol=1e-3, atol=1e-3
        )
        x = 2 * x - 1
        for name in (
            "Conv2d_1a_3x3",
            "Conv2d_2a_3x3",
            "Conv2d_2b_3x3",
            "pool1",
            "Conv2d_3b_1x1",
            "Conv2d_4a_3x3",
            "pool2",
            "Mixed_5b",
            "Mixed_5c",
            "Mixed_5d",
            "Mixed_6a",
            "Mixed_6b",
            "Mixed_6c",
            "Mixed_6d",
            "Mixed_6e",
            "Mixed_7a",
            "Mixed_7b",
            "Mixed_7c",
        ):
            x = F.max_pool2d(x, 3, 2) if name.startswith("pool") else getattr(whole, name)(x)
            found[name] = x.numpy()
    np.savez(path, **found)


if __name__ == "__main__":
    main()
