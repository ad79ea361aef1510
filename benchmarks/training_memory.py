"""Memory of a training step by its examples: what one example's loss and gradient take of Jittor's
memory, and what each further one adds.

"first" and "each" are the peaks of Jittor's pool of memory (free blocks between arrays included,
working memory of oneDNN not) above the weights, of the gradient of one example and the difference
that a second one makes. The gradients, which exist at the end, are part of "first". Each
measurement is a process of its own. `plain`: every operator by its twin in plain Jittor, as on CUDA
where no operator of ours computes; `fused`: those that compute on this device.

On a CPU half precision is stored in float32. --device emulated is the CUDA device of `make
cuda-emulate` (run that first), which stores halves; its kernels and products are left out, because
memory does not depend on numbers.

  python benchmarks/training_memory.py unet:release                # the release's size
  python benchmarks/training_memory.py unet:release --device emulated --precision bf16 \\
      --operators fused --examples 4 8
  python benchmarks/training_memory.py unet:release:64x48 pixnerd:pixnerd-L/16:256x256
"""

import argparse
import ctypes
import dataclasses
import json
import os
import subprocess
import sys
from types import SimpleNamespace


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", metavar="KIND:PRESET[:WIDTHxHEIGHT]")
    parser.add_argument("--operators", nargs="+", default=["plain"], choices=("plain", "fused"))
    parser.add_argument("--recompute", nargs="+", type=int, default=[0, 1], choices=(0, 1))
    parser.add_argument("--examples", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16", "fp16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "emulated"))
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        return measure(args)
    print("| network | operators | recompute | weights | first | each |\n|---|---|---|---|---|---|")
    for name in args.networks:
        for operators in args.operators:
            for again in args.recompute:
                weights, first, each = in_child(args, name, operators, again)
                cells = [f"{count / 1e6:.1f} MB" for count in (weights, first, each)]
                words = [name, operators, "on" if again else "off", *cells]
                print(f"| {' | '.join(words)} |", flush=True)


def in_child(args, name, operators, again):
    environment = dict(os.environ)
    if args.device == "emulated":
        from jseg.parity.cuda_emulation.device import toolkit

        cache = os.path.join(os.path.expanduser("~"), ".cache", "jseg", "cuda-emulation")
        environment = toolkit.environment(toolkit.build(cache))
    environment.update({"JSEG_FUSED": ""} if operators == "plain" else {})
    call = [sys.executable, __file__, name, "--child", str(again), "--device", args.device]
    call += ["--precision", args.precision, "--examples"]
    done = subprocess.run(
        call + [str(count) for count in args.examples],
        env=environment,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )
    if done.returncode:
        sys.exit(f"{name} failed with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


# What the emulated device computes, by the names of its library.
COMPUTING = (
    "_ZN9emulation3runERKNS_6LaunchEPKcPFvPvES5_",  # emulation::run, which launches a kernel
    *("cublasSgemm", "cublasGemmEx", "cublasGemmStridedBatchedEx"),
    *(f"cudnnConvolution{name}" for name in ("Forward", "BackwardData", "BackwardFilter")),
    *("curandGenerateNormal", "curandGenerateUniform"),
)


def leave_out_kernels():
    """Let these functions return 0 at once, by x86-64's words for that in the place of theirs."""
    with open("/proc/self/maps") as file:
        paths = {line.split()[-1] for line in file if "libcudart" in line}
    for path in paths:
        for name in COMPUTING:
            place = ctypes.cast(getattr(ctypes.CDLL(path), name), ctypes.c_void_p).value
            ctypes.CDLL(None).mprotect(ctypes.c_void_p(place & ~4095), 8192, 7)
            ctypes.memmove(place, b"\x31\xc0\xc3", 3)


def measure(args):
    from jseg.nn.precision import computing_in
    from jseg.runtime import device, jt
    from jseg.training.loop import accumulate
    from jseg.training.optimizer import trainable

    kind, preset, *size = args.networks[0].split(":")
    device("cpu" if args.device == "cpu" else "cuda")
    if args.device == "emulated":
        leave_out_kernels()
    network, loss, batch = {"unet": unet, "pixnerd": pixnerd}[kind](preset, size)
    network.train()
    network.recompute = bool(args.child)
    parameters = trainable(network)
    jt.sync(list(network.state_dict().values()))
    optimizer = SimpleNamespace(parameters=parameters)
    part = SimpleNamespace(optimizer=optimizer, loss=loss, loss_scale=None)

    peaks = []
    for count in args.examples:
        jt.sync_all(True)
        jt.gc()
        before = pool()
        with computing_in(args.precision):
            gradients = accumulate(part, [(batch(count), 1.0)])
        jt.sync_all(True)
        peaks.append(pool() - before)
        del gradients
    each = (peaks[-1] - peaks[0]) / max(1, args.examples[-1] - args.examples[0])
    print(json.dumps([4 * sum(v.numel() for v in parameters.values()), peaks[0], each]))


def pool():
    """Bytes that Jittor has taken."""
    from jseg.runtime import jt

    memory = jt.get_mem_info()
    return memory.total_cuda_used if jt.flags.use_cuda else memory.total_cpu_used


def sized(config, size):
    if not size:
        return config
    width, height = map(int, size[0].split("x"))
    return dataclasses.replace(config, width=width, height=height)


def unet(preset, size):
    import numpy as np

    from jseg.ldm.loss import training_loss
    from jseg.ldm.presets import UNETS
    from jseg.ldm.schedule import Schedule
    from jseg.ldm.unet import UNet

    config = sized(UNETS[preset], size)
    network, rng = UNet(config), np.random.default_rng(0)

    def batch(count):
        shape = (count, config.latent_channels, config.height, config.width)
        z, noise = rng.standard_normal((2, *shape)).astype(np.float32)
        labels = rng.integers(0, config.classes, (count, config.height, config.width))
        place = {"seed": 0, "step": 0, "start": 0}
        return {"z": z, "t": np.full(count, 500), "labels": labels, "noise": noise, **place}

    return network, training_loss(network, Schedule()), batch


def pixnerd(preset, size):
    import numpy as np

    from jseg.flowseg.encoding import class_codes
    from jseg.flowseg.field import training_loss
    from jseg.flowseg.pixnerd import PixNerd
    from jseg.flowseg.presets import NETWORKS

    config = sized(NETWORKS[preset], size)
    codes, rng = class_codes(config.labels), np.random.default_rng(0)
    network = PixNerd(config)

    def batch(count):
        shape = (count, config.height, config.width)
        labels = rng.integers(0, config.labels, shape).astype(np.uint8)
        images = rng.integers(0, 256, (count, 3, *shape[1:])).astype(np.uint8)
        noise = rng.standard_normal((count, 3, *shape[1:]), dtype=np.float32)
        t = np.full(count, 0.3, np.float32)
        return {"images": images, "labels": labels, "t": t, "noise": noise}

    return network, training_loss(network, codes), batch


if __name__ == "__main__":
    main()
