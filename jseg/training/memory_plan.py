"""How many examples a GPU computes at a time in training, and whether it keeps their activations or
computes them again, from the memory that is free. The update is the same whatever is chosen.

What a training takes is linear in the examples at a time, but for attention's scores, of which
there is a chunk at most (jseg/nn/chunks.py). The numbers of each network are counted
from its configuration and measured on the CPU's arrays (jseg/ldm/training_memory.py,
jseg/flowseg/training_memory.py); jseg/training/memory.py measures again on the GPU itself. Needs no
Jittor.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence, Tuple

from jseg.machine.free_memory import GpuMemory
from jseg.nn import chunks

# Examples at a time from which on keeping activations is preferred to computing more at a time. By
# arithmetic: four latents of the release fill the multiprocessors of any card; not measured.
ENOUGH = 4


class Need(NamedTuple):
    """What a training takes of memory, in bytes."""

    state: int  # weights, moments and moving average
    gradients: int  # one set; several micro-batches add up in a second one
    first: int  # the activations of one example at a time
    each: int  # and of every further one
    scores: int = 0  # of one example, in the network's largest self-attention

    def total(self, at_a_time: int, part: int) -> int:
        """For `part` examples of a process, `at_a_time` of them in a micro-batch."""
        sets = 1 if at_a_time >= part else 2
        attention = chunks.working_bytes(at_a_time * self.scores, chunks.IN_GRADIENT)
        activations = self.first + (at_a_time - 1) * self.each + attention
        return self.state + sets * self.gradients + activations

    def fitting(self, memory: int, part: int) -> int:
        """The most examples of a process's `part` at a time that fit; 0 where one does not."""
        if self.total(part, part) <= memory:
            return part
        sizes = range(part - 1, 0, -1)
        return next((size for size in sizes if self.total(size, part) <= memory), 0)


def need(parameters: int, average: bool, each: int, constant: int, scores: int) -> Need:
    """The need of a network of so many parameters, whose state is float32; constant: what is taken
    beside, however many the examples; scores: bytes of an example's largest self-attention.
    """
    return Need(
        4 * parameters * (4 if average else 3), 4 * parameters, each + constant, each, scores
    )


class Plan(NamedTuple):
    micro_batch: int
    recompute: bool

    def line(self, memory: GpuMemory, part: int) -> str:
        """What was chosen, for the user."""
        count = -(-part // self.micro_batch)
        batches = (
            f"{part} examples at a time"
            if count == 1
            else f"{part} examples as {count} micro-batches of {self.micro_batch} at most"
        )
        return (
            f"{memory.free / 1e9:.1f} GB free on the GPU: {batches}, recompute "
            f"{'on' if self.recompute else 'off'}; --micro_batch, --recompute and --no_recompute "
            "decide otherwise (the update is the same)"
        )


def choose(
    part: int,
    memory: GpuMemory,
    plain: Need,
    again: Need,
    micro_batch: Optional[int] = None,
    recompute: Optional[bool] = None,
) -> Plan:
    """The plan for a process's `part` of the batch.

    plain, again: what the training takes with all activations kept, and with recompute.
    micro_batch, recompute: as the user gave them, None for what is to be chosen; a micro-batch that
    was given is not reduced. Raises ValueError in one line where not even one example fits.
    """
    kinds = [(False, plain), (True, again)]
    kinds = [kind for kind in kinds if recompute in (None, kind[0])]
    if micro_batch is not None:
        size = min(micro_batch, part)
        fits = [number for number, need in kinds if need.total(size, part) <= memory.usable]
        return Plan(size, fits[0] if fits else kinds[-1][0])

    fitting = [(need.fitting(memory.usable, part), number) for number, need in kinds]
    if fitting[0][0] >= min(part, ENOUGH):
        return Plan(*fitting[0])
    size, number = max(fitting, key=lambda kind: kind[0])
    if size < 1:
        would = recompute is False and again.total(1, part) <= memory.usable
        raise ValueError(_refusal(memory, kinds, part, ["leave out --no_recompute"] * would))
    return Plan(size, number)


def _refusal(
    memory: GpuMemory, kinds: Sequence[Tuple[bool, Need]], part: int, remedies: List[str]
) -> str:
    """That nothing fits, and what would, beside the remedies that are known to help."""
    number, need = kinds[-1]
    one = need.total(1, part)
    lacking = one - memory.usable
    if need.first * 3 // 4 >= lacking:
        remedies.append("give half of --width and --height")
    remedies.append("take a smaller --preset")
    how = "one example at a time with recompute" if number else "one example at a time"
    return (
        f"{how} needs about {one / 1e9:.1f} GB of the GPU's memory, {memory.free / 1e9:.1f} GB are "
        f"free ({memory.usable / 1e9:.1f} GB for the training): {', or '.join(remedies)}, close "
        "other programs that use the GPU, or give --device cpu"
    )
