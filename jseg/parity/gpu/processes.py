"""Two processes under mpirun, each on a GPU of its own, whose gradients NCCL adds up: equal to
those of one process.

As a program, one of the processes: mpirun -np 2 python -m jseg.parity.gpu.processes DEVICE FILE.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import Dict, Iterator, List

import numpy as np

from jseg.ldm.loss import training_loss
from jseg.ldm.presets import UNETS
from jseg.ldm.schedule import Schedule
from jseg.ldm.unet import UNet
from jseg.machine import cuda, mpirun
from jseg.machine.compilation import telling_line
from jseg.machine.program_output import program_output
from jseg.parity.gpu.comparing import BOUND, FLOOR, difference, filled
from jseg.parity.gpu.losses import latent_batch
from jseg.parity.gpu.records import Case, LeftOut
from jseg.runtime import device, jt
from jseg.training import distributed
from jseg.training.loop import TrainedNetwork, accumulate
from jseg.training.optimizer import AdamW, trainable

PROCESSES = 2
SECONDS = 110  # for both to come up, which compiles Jittor's MPI and NCCL, and to compute


def process_cases(target: str, folder: str) -> Iterator[Case]:
    """The one case."""
    name = f"gradients of {PROCESSES} processes"
    yield Case(name, lambda: _compared(target, os.path.join(folder, "summed.npz")), BOUND)


def _compared(target: str, path: str) -> Dict[str, object]:
    lacking = _lacking(target)
    if lacking:
        raise LeftOut(lacking)
    device(target)
    expected = _gradients()
    _run_processes(target, path)
    with np.load(path) as file:
        summed = [file[f"arr_{number}"] for number in range(len(expected))]
        transport = str(file["transport"])
    return {"difference": difference(summed, expected, FLOOR), "note": transport}


def _lacking(target: str) -> str:
    """What this machine lacks for two processes, "" if nothing."""
    mpicc = os.environ.get("mpicc_path") or shutil.which("mpicc")
    open_mpi = bool(mpicc and program_output(mpicc, "--showme:compile"))  # no other knows the word
    if shutil.which("mpirun") is None or not open_mpi:
        return "no Open MPI: sudo apt install openmpi-bin libopenmpi-dev"
    _, devices = cuda.driver() or (0, [])
    return "one GPU" if target == "cuda" and len(devices) < PROCESSES else ""


def _run_processes(target: str, path: str) -> None:
    """Start the processes and wait for them; raises RuntimeError with the line that names the
    cause if one fails.
    """
    start = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", str(PROCESSES)]
    process = subprocess.Popen(
        [*start, sys.executable, "-m", "jseg.parity.gpu.processes", target, path],
        env=mpirun.without(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()  # which mpirun passes on to its processes
        output, _ = process.communicate()
        output += f"\nstopped after {SECONDS} s"
    if process.returncode:
        raised = re.findall(r"^[\w.]*(?:Error|Problem|Exception): .+", output, re.M)
        raise RuntimeError(raised[0] if raised else telling_line(output))


def _gradients() -> List[np.ndarray]:
    """The gradients of a batch of two examples: this process's micro-batches of one example each,
    summed over all processes.
    """
    unet = filled(UNet(UNETS["tiny"]))
    unet.train()
    part = TrainedNetwork("", unet, training_loss(unet, Schedule()), AdamW(trainable(unet), 1e-4))
    own = range(PROCESSES)[distributed.rank() :: distributed.world_size()]
    batches = [(latent_batch(unet.config, start, 1), 1 / PROCESSES) for start in own]
    gradients, _ = accumulate(part, batches)
    return [gradient.numpy() for gradient in distributed.all_reduce(gradients)]


def _transport() -> str:
    """What adds up between processes."""
    nccl = jt.flags.use_cuda and getattr(jt.compile_extern, "nccl_ops", None) is not None
    return "NCCL" if nccl else "MPI, through the CPU"


def main(argv: List[str]) -> None:
    target, path = argv
    device(target)
    if distributed.world_size() != PROCESSES:
        sys.exit(f"{distributed.world_size()} processes came up, expected {PROCESSES}")
    gradients = _gradients()
    if distributed.rank() == 0:
        np.savez(path, *gradients, transport=np.array(_transport()))


if __name__ == "__main__":
    main(sys.argv[1:])
