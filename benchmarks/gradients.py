"""Gradients of the mean training loss of a small UNet, parameter by parameter, beside another
implementation's.

Network, weights, latents, labels and noise are those of tests/golden/training.npz and the recipe of
jseg.parity.stand_in, so any implementation of the same layout can make the same file: an .npz with
an array of every parameter's name. The golden timesteps are 0 and 640; at 0 the loss has a
likelihood that is a difference of nearly equal numbers, which costs float32 four digits in anyone's
hands.

  python benchmarks/gradients.py --output ours.npz
  python benchmarks/gradients.py --theirs torch_float32.npz torch_float64.npz        # a row per pair, the last file taken as exact
"""

import argparse
import sys
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "training.npz"
FLOOR = 1e-6  # of the largest gradient: below are those that are zero but for rounding


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", help="write ours there")
    parser.add_argument(
        "--theirs", nargs="*", default=[], help="gradients of others; differences are to the last"
    )
    parser.add_argument("--timesteps", type=int, nargs=2, default=(0, 640))
    parser.add_argument("--recompute", action="store_true", help="ours with recomputed blocks")
    args = parser.parse_args()
    import numpy as np

    if args.output:
        from jseg.outputs.places import check_file

        check_file(args.output, "--output", args.theirs)
    files = {"ours": gradients(args.timesteps, args.recompute)}
    if args.output:
        np.savez(args.output, **files["ours"])
    files.update((Path(path).stem, dict(np.load(path))) for path in args.theirs)
    if len(files) > 1:
        table(files)


def gradients(timesteps, recompute):
    import dataclasses

    import numpy as np

    from jseg.ldm.loss import diffusion_loss
    from jseg.ldm.presets import UNETS
    from jseg.ldm.schedule import Schedule
    from jseg.ldm.unet import UNet
    from jseg.nn.layers import one_hot
    from jseg.parity.stand_in import value
    from jseg.runtime import jt
    from jseg.training.optimizer import trainable

    arrays = np.load(GOLDEN)
    unet = UNet(dataclasses.replace(UNETS["release"], channels=32, head_channels=16))
    for name, v in unet.state_dict().items():
        v.assign(jt.array(value(name, v.shape)))
    unet.train()
    unet.recompute = recompute
    parameters = trainable(unet)
    t, y = np.array(timesteps), one_hot(arrays["label"][:, 0], 29)
    loss = diffusion_loss(unet, Schedule(), arrays["z0"], t, y, arrays["noise"])["loss"].mean()
    found = jt.grad(loss, list(parameters.values()), retain_graph=False)
    return {name: gradient.numpy() for name, gradient in zip(parameters, found)}


def table(files):
    """Relative differences ||a - b|| / ||b|| of every parameter's gradient to the last file's."""
    import numpy as np

    exact = list(files)[-1]
    reference = files[exact]
    for name, arrays in files.items():
        if set(arrays) != set(reference):
            sys.exit(
                f"{name} and {exact} have other parameters: "
                f"{sorted(set(arrays) ^ set(reference))[:3]}, ..."
            )
    norms = {key: np.linalg.norm(value) for key, value in reference.items()}
    counted = [key for key in norms if norms[key] > FLOOR * max(norms.values())]
    print(
        f"{len(norms)} parameters, {len(counted)} with a gradient above {FLOOR:g} of the largest\n"
    )
    print(
        f"| to {exact} | largest | median | all together | largest of the others, to the largest "
        "gradient |\n|---|---|---|---|---|"
    )
    for name, arrays in list(files.items())[:-1]:
        off = {
            key: np.linalg.norm(arrays[key].astype(np.float64) - reference[key]) for key in norms
        }
        relative = {key: off[key] / norms[key] for key in counted}
        worst = max(relative, key=relative.get)
        whole = np.sqrt(
            sum(value**2 for value in off.values()) / sum(value**2 for value in norms.values())
        )
        others = max((off[key] for key in set(norms) - set(counted)), default=0.0) / max(
            norms.values()
        )
        print(
            f"| {name} | {relative[worst]:.1e} ({worst}) | "
            f"{np.median(list(relative.values())):.1e} | {whole:.1e} | {others:.1e} |"
        )


if __name__ == "__main__":
    main()
