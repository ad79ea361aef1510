"""What waiting costs on a machine that others use: the demo's synthesis and a training step, with
busy processes beside them, for several ways in which OpenMP's threads wait.

A thread of libgomp that waits spins for a while before it sleeps. On a quiet machine spinning saves
the time of waking up; where a busy process has the core of the thread that is waited for, it takes
that thread's time. Policies:

- spin: libgomp's own choice where nothing is set, GOMP_SPINCOUNT=300000, which is 3 ms or so;
- passive: OMP_WAIT_POLICY=passive, which sleeps at once;
- a number: GOMP_SPINCOUNT of that many rounds;
- jseg: nothing is set, so jseg chooses (jseg/machine/waiting.py).

Measured are the demo's synthesis, a whole process with the shipped weights (one that may compile
comes first and does not count), and a training step of the shipped weights' UNet (the median of
some steps after two that do not count). The policies alternate, so that all meet the same machine;
medians of the rounds, ratios to `spin`, or else to the first policy.

  python benchmarks/busy_machine.py                     # on a machine with nothing else to do
  python benchmarks/busy_machine.py --policies spin 1000 --loads 0 6 --rounds 1 --images 1
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
NAMED = {
    "spin": {"GOMP_SPINCOUNT": "300000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "jseg": {},
}
# A busy process ends itself when the benchmark is gone, however that came.
BUSY = "import os\nwhile os.getppid() == {parent}:\n    sum(range(100000))"
HEADER = "| busy processes | policy | synthesis | ratio | training step | ratio |"
WARM_UP, EXAMPLES = 2, 4  # training steps that do not count; examples of a step


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    policies = ["spin", "passive", "1000", "5000", "20000", "jseg"]
    parser.add_argument("--policies", nargs="+", default=policies)
    parser.add_argument("--loads", nargs="+", type=int, default=[0, 2, 6], help="busy processes")
    parser.add_argument("--rounds", type=int, default=3, help="processes per policy and load")
    parser.add_argument("--images", type=int, default=2, help="of the synthesis")
    parser.add_argument("--steps", type=int, default=10, help="training steps that are timed")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return print(json.dumps(training_step(args.steps)))
    for policy in args.policies:
        if policy not in NAMED and not policy.isdigit():
            parser.error(f"--policies {policy}: expected a number, {', '.join(NAMED)}")
    with tempfile.TemporaryDirectory() as folder:
        call = synthesis(Path(folder), args.images)
        seconds_of_synthesis(call, folder, "spin")
        print(f"{HEADER}\n|{'---|' * HEADER.count(' | ')}---|", flush=True)
        for load in args.loads:
            with busy(load):
                report(load, measured(args, call, folder))


@contextlib.contextmanager
def busy(count):
    """`count` processes that compute without a pause; they end with the block, also at Ctrl-C."""
    words = [sys.executable, "-c", BUSY.format(parent=os.getpid())]
    processes = []
    try:
        for _ in range(count):
            processes.append(subprocess.Popen(words, stderr=subprocess.DEVNULL))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measured(args, call, folder):
    """{policy: (seconds of each synthesis, seconds of each training's step)}, policies in turn."""
    times = {policy: ([], []) for policy in args.policies}
    for _ in range(args.rounds):
        for policy, (syntheses, steps) in times.items():
            syntheses.append(seconds_of_synthesis(call, folder, policy))
            child = [sys.executable, __file__, "--child", f"--steps={args.steps}"]
            steps.append(json.loads(output(child, policy).splitlines()[-1]))
    return times


def report(load, times):
    """Print the load's rows of the table."""
    medians = {policy: list(map(statistics.median, kinds)) for policy, kinds in times.items()}
    base = medians.get("spin", next(iter(medians.values())))
    for policy, (whole, step) in medians.items():
        ratios = f"{whole / base[0]:.2f}", f"{step / base[1]:.2f}"
        row = str(load), policy, f"{whole:.2f} s", ratios[0], f"{step * 1e3:.0f} ms", ratios[1]
        print(f"| {' | '.join(row)} |", flush=True)


def synthesis(folder, images):
    """The call that makes the demo's images, its inputs drawn into the folder."""
    from jseg.commands.demo import STAGES
    from jseg.landscapes.challenge_folder import write_challenge
    from jseg.ldm.weights import SHIPPED_AUTOENCODER, SHIPPED_MODEL, expected_networks

    unet, autoencoder = expected_networks(SHIPPED_MODEL, SHIPPED_AUTOENCODER)
    factor = autoencoder.downsampling
    write_challenge(folder / "data", images, 0, unet.width * factor, unet.height * factor)
    stages = folder / "stages.json"
    stages.write_text(json.dumps(STAGES))
    options = {
        "input_path": folder / "data" / "test",
        "img_path": folder / "data" / "train",
        "model_path": SHIPPED_MODEL,
        "ae_path": SHIPPED_AUTOENCODER,
        "stages": stages,
        "device": "cpu",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "jseg", "test", *words]


def seconds_of_synthesis(call, folder, policy):
    """Of the whole process, which writes into a new folder."""
    with tempfile.TemporaryDirectory(dir=folder) as results:
        start = time.perf_counter()
        output([*call, f"--output_path={results}/images"], policy)
        return time.perf_counter() - start


def output(call, policy):
    """What a child prints whose threads wait by the policy."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment.update(NAMED.get(policy, {"GOMP_SPINCOUNT": policy}))
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        call,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    if done.returncode:
        sys.exit(f"{policy}: {' '.join(call)} failed\n{done.stderr}")
    return done.stdout


def training_step(steps):
    """The median seconds of a training step of the shipped weights' UNet."""
    import numpy as np

    from jseg.ldm.loss import training_loss
    from jseg.ldm.presets import UNETS
    from jseg.ldm.schedule import Schedule
    from jseg.ldm.unet import UNet
    from jseg.runtime import device, jt
    from jseg.training.loop import TrainedNetwork, take_step
    from jseg.training.optimizer import AdamW, trainable

    # The network, and one batch.
    device("cpu")
    config, rng = UNETS["landscape"], np.random.default_rng(0)
    unet = UNet(config)
    unet.train()
    shape = (EXAMPLES, config.latent_channels, config.height, config.width)
    batch = {
        "z": rng.standard_normal(shape).astype(np.float32),
        "t": np.full(EXAMPLES, 500),
        "labels": rng.integers(0, config.classes, shape[:1] + shape[2:]),
        "noise": rng.standard_normal(shape).astype(np.float32),
        "seed": 0,
        "step": 0,
        "start": 0,
    }
    loss = training_loss(unet, Schedule())
    part = TrainedNetwork("", unet, loss, AdamW(trainable(unet), 1e-4))

    # The first steps compile, or load what is compiled.
    times = []
    for step in range(WARM_UP + steps):
        start = time.perf_counter()
        take_step(part, [(batch, 1.0)], step)
        jt.sync_all(True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP:])


if __name__ == "__main__":
    main()
