"""The table of docs/training.md: what is chosen on a GPU of each size, from the memory that jseg
counts. No GPU and no Jittor are needed; tests/training/test_memory_plan.py holds the page to it.

  python benchmarks/memory_plan.py
"""

import dataclasses

from jseg.flowseg import training_memory as flowseg
from jseg.flowseg.presets import NETWORKS
from jseg.ldm import low_memory
from jseg.ldm import training_memory as ldm
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.machine.free_memory import GpuMemory
from jseg.training.memory_plan import choose

CARDS = (8, 12, 24, 40, 80)  # GB
TAKEN = 600_000_000  # bytes of a card that CUDA and the screen are allowed here
# Command: (what it needs, examples of a process).
TRAININGS = {
    "`train` (batch 30)": (ldm.needs(UNETS["release"], True), 30),
    "`train --release` (5 a process)": (ldm.needs(UNETS["release"], True), 5),
    "`train --precision bf16` (batch 30)": (ldm.needs(UNETS["release"], True, 2), 30),
    "`train --preset landscape`": (ldm.needs(UNETS["landscape"], True), 30),
}
for preset in ("pixnerd-L/16", "pixnerd-XL/16"):
    for side in (256, 512):
        config = dataclasses.replace(NETWORKS[preset], width=side, height=side)
        name = f"`train_flowseg --preset {preset}`, {side}x{side} (batch 16)"
        TRAININGS[name] = (flowseg.needs(config, True), 16)
        half = f"`train_flowseg --preset {preset} --precision bf16`, {side}x{side} (batch 16)"
        TRAININGS[half] = (flowseg.needs(config, True, 2), 16)


def card(gigabytes):
    return GpuMemory(gigabytes * 10**9 - TAKEN, gigabytes * 10**9)


def training_cell(needs, part, memory):
    try:
        plan = choose(part, memory, *needs)
    except ValueError:
        return "no"
    return f"{plan.micro_batch}{', recompute' if plan.recompute else ''}"


def inference_cell(memory):
    try:
        plan = low_memory.plan(memory, UNETS["release"], AUTOENCODERS["release"])
    except ValueError:
        return "no"
    return f"{plan.batch}, {'low' if plan.low else 'full'}"


def table():
    rows = [["command", *(f"{size} GB" for size in CARDS)], ["---"] * (len(CARDS) + 1)]
    for name, (needs, part) in TRAININGS.items():
        rows.append([name, *(training_cell(needs, part, card(size)) for size in CARDS)])
    rows.append(["`test`", *(inference_cell(card(size)) for size in CARDS)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table())
