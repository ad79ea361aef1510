"""Time and peak memory of encoding, decoding and one guided step at release size: ours, and the official release beside it.

Each measurement is a process of its own; ours and the release's alternate, so that both meet the same machine. Weights are the
recipe of jseg.ldm.recipe, so no checkpoint is needed, and the results are compared. The best of the repetitions counts, the first
of each process (which may compile kernels) does not. Peak memory is the process's largest resident set.

  python benchmarks/ldm_cost.py                                  # ours alone
  python benchmarks/ldm_cost.py --official PATH --rounds 2       # beside a clone of ader47/jittor-jieke-semantic_images_synthesis

The clone is used as it is; from outside come stand-ins for packages that inference does not need (STAND_INS) and the right order of
the decoder's levels, which Jittor 1.3.11 otherwise reads by position (docs/differences.md).
"""
import argparse
import json
import resource
import subprocess
import sys
import time
import types

PARTS = ("encode", "decode", "step")
STAND_INS = ("blobfile", "mpi4py", "mpi4py.MPI", "omegaconf", "albumentations", "requests", "npy_append_array")
SCALE = 3.5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", help="folder with a clone of the official release")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--rounds", type=int, default=1, help="processes per measurement")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return measure(args)
    print("| part | ours | release | ratio | ours, peak | release, peak | ratio | relative difference |\n|---|---|---|---|---|---|---|---|")
    for part in args.parts:
        found = {"ours": [], "release": []}
        for _ in range(args.rounds):
            for side in ["ours"] + ["release"] * bool(args.official):
                found[side].append(run_child(side, part, args))
        print(row(part, found), flush=True)


def run_child(side, part, args):
    command = [sys.executable, __file__, "--child", side, "--parts", part, "--repetitions", str(args.repetitions)]
    command += ["--official", args.official] if args.official else []
    done = subprocess.run(command, stdout=subprocess.PIPE, universal_newlines=True)
    if done.returncode:
        sys.exit(f"{side} {part} failed with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def row(part, found):
    best = {side: min(one["seconds"] for one in runs) for side, runs in found.items() if runs}
    peak = {side: max(one["peak"] for one in runs) for side, runs in found.items() if runs}
    if "release" not in best:
        return f"| {part} | {best['ours']:.2f} s | | | {peak['ours']:.2f} GB | | | |"
    ours, theirs = found["ours"][0], found["release"][0]
    difference = max(abs(a - b) for a, b in zip(ours["sample"], theirs["sample"])) / theirs["largest"]
    return (f"| {part} | {best['ours']:.2f} s | {best['release']:.2f} s | {best['release'] / best['ours']:.2f} | {peak['ours']:.2f} GB | "
            f"{peak['release']:.2f} GB | {peak['ours'] / peak['release']:.2f} | {difference:.1e} |")


def measure(args):
    from jseg.runtime import jt
    import numpy as np
    rng = np.random.default_rng(0)
    build = ours if args.child == "ours" else lambda part, jt, data: release(part, jt, data, args.official)
    data = {"picture": rng.uniform(-1, 1, (1, 3, 384, 512)).astype(np.float32),
            "latent": rng.standard_normal((1, 3, 96, 128)).astype(np.float32), "label": rng.integers(0, 29, (1, 96, 128))}
    compute, seconds = build(args.parts[0], jt, data), []
    for _ in range(args.repetitions + 1):
        before = time.perf_counter()
        with jt.no_grad():
            out = compute().numpy()
        seconds.append(time.perf_counter() - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"seconds": min(seconds[1:]), "peak": peak, "largest": float(np.abs(out).max()),
                      "sample": out.reshape(-1)[::97].tolist()}))


def filled(module, jt):
    from jseg.ldm.recipe import value
    for name, v in module.state_dict().items():
        v.assign(jt.array(value(name, v.shape)))
        v.sync()
    jt.gc()
    module.eval()
    return module


def ours(part, jt, data):
    from jseg.layers import one_hot
    from jseg.ldm.autoencoder import Autoencoder
    from jseg.ldm.presets import AUTOENCODERS, UNETS
    from jseg.ldm.samplers import guided
    from jseg.ldm.unet import UNet
    if part == "step":
        predictor = guided(filled(UNet(UNETS["release"]), jt), one_hot(data["label"], 29), SCALE)
        x, t = jt.array(data["latent"]), jt.array([600])
        return lambda: predictor(x, t)
    network = filled(Autoencoder(AUTOENCODERS["release"]), jt)
    picture, z = jt.array(data["picture"]), jt.array(data["latent"])
    return (lambda: network.encode(picture)) if part == "encode" else (lambda: network.decode(z))


def release(part, jt, data, path):
    from jseg.layers import one_hot
    sys.path.insert(0, path)
    for name in STAND_INS:
        module = types.ModuleType(name)
        module.__getattr__ = lambda attribute: (lambda *args, **options: None)
        sys.modules.setdefault(name, module)
    if part == "step":
        from models.guided_diffusion.script_util import create_model
        unet = filled(create_model((128, 96), 29, 256, 2, learn_sigma=True, class_cond=True, attention_resolutions="32,16,8", num_heads=4,
                                   num_head_channels=64, use_scale_shift_norm=True, resblock_updown=True), jt)
        x, t, y = jt.array(data["latent"]), jt.array([600]), one_hot(data["label"], 29)

        def step():
            conditional, null = unet(x, t, y=y)[:, :3], unet(x, t, y=jt.zeros_like(y))[:, :3]
            return null + SCALE * (conditional - null)

        return step
    from models.autoencoder.autoencoder import VQModelInterface
    settings = dict(double_z=False, z_channels=3, resolution=256, in_channels=3, out_ch=3, ch=128, ch_mult=[1, 2, 4], num_res_blocks=2,
                    attn_resolutions=[], dropout=0.0)
    network = VQModelInterface(embed_dim=3, n_embed=8192, ddconfig=settings)
    levels, ordered = network.decoder.up.layers, jt.nn.ModuleList()
    for name in sorted(levels):
        ordered.add_module(name, levels[name])
    network.decoder.up = ordered
    filled(network, jt)
    picture, z = jt.array(data["picture"]), jt.array(data["latent"])
    return (lambda: network.encode(picture)) if part == "encode" else (lambda: network.decode(z))


if __name__ == "__main__":
    main()
