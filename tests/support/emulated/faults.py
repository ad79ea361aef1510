"""Faults put into our CUDA sources one at a time, as the test of the emulation: what shows each.

`python -m support.emulated.faults`, with the root and tests/ on PYTHONPATH, prints the table of
docs/kernels.md.
"""

import tempfile
from dataclasses import dataclass, replace

from support.emulated.cases import errors, run
from support.emulated.operators import OPERATORS

ORDERS = ("forward", "reverse", "random:1", "random:2")
MODES = {
    "values": "wrong values, NaN, reports of the emulation, a crash; one order of threads",
    "orders": "results that depend on the order of threads; four orders",
    "memory": "address and undefined-behaviour sanitizers",
    "races": "thread sanitizer",
}
MESSAGES = {
    "values": {"emulation:": "report"},
    "memory": {"AddressSanitizer": "address", "runtime error": "undefined"},
    "races": {"ThreadSanitizer: data race": "race"},
}


@dataclass(frozen=True)
class Fault:
    operator: str
    what: str
    text: str
    replacement: str
    mode: str  # that shows it
    source: str = "header"  # or a name in the operator's table of sources
    number: int = 0  # which occurrence of the text

    def __str__(self):
        return f"{self.operator}: {self.what}"


def of(operator, *rows):
    """Faults of an operator: (what, text, replacement, mode) and, where it is not the first in the
    header, the source and the number of the occurrence.
    """
    return [Fault(operator, *row) for row in rows]


def barriers(operator, where, modes, first=0):
    """Each barrier of a function left out, one at a time, and the mode that shows it."""
    return of(
        operator,
        *(
            (f"{where} without barrier {n + 1}", "__syncthreads();", ";", mode, "header", first + n)
            for n, mode in enumerate(modes)
        ),
    )


FAULTS = (
    *barriers("group_norm", "block_sum", ("races", "races", "races")),
    *barriers("rms_norm", "backward", ("races",)),
    *barriers("rms_norm", "totals", ("races",), first=1),
    *barriers("attention", "forward", ("races", "races", "races", "races", "orders")),
    *barriers("attention", "backward", ("races", "races", "races"), first=5),
    *of(
        "attention",
        ("rows are read past the end", "start + row < length && ", "", "memory"),
        ("no zeros behind the end", ": 0.f;\n    }", ": to[row][c];\n    }", "values"),
        ("rows are written past the end", "if (row >= length) continue;", "", "memory"),
        ("one query more than there are", "column < others ?", "column <= others ?", "memory"),
        ("weights of another row", "weights[y + H][j] * value", "weights[y][j] * value", "values"),
        ("sums of a thread begin anywhere", "total1[r][c] = total2[r][c] = 0;", ";", "values"),
        ("the sum is not scaled anew", "sum[r] *= kept;", "", "values"),
        ("delta of the row", "= OF_KEYS ? column : row", "= row", "values"),
        ("tiles too large", "<false, 32, 64>", "<false, 32, 128>", "values", "backward"),
    ),
    *of(
        "rms_norm",
        ("one channel more", "j < n; j += WARP) sq", "j <= n; j += WARP) sq", "memory"),
        ("a token past the last", "if (i >= count) return;", "", "memory"),
        ("tokens past the end", "run < tokens ? start + run : tokens", "run", "memory"),
        ("sums that are not cleared", "of_s[j] = of_b[j] = 0;", ";", "values"),
        ("the warps share their sums", "sums + 2 * n * warp", "sums", "races"),
        ("every lane writes q", "if (lane == 0) kept", "kept", "races"),
        ("a lane sums half of its warp", "bits = WARP / 2", "bits = WARP / 4", "values"),
        ("a run of other warps' tokens", "i += warps", "i += WARPS", "values"),
        ("columns past the end", "if (column < 2 * n) for", "for", "memory"),
        ("a block too few", "<<<blocks, THREADS", "<<<blocks - 1, THREADS", "values", "forward"),
        ("sums of one warp", "warps * 2 * n *", "2 * n *", "values", "backward"),
    ),
    *of(
        "group_norm",
        ("block_sum with a thread too many", "x < half) held", "x <= half) held", "races"),
        ("values past the end", "j < z.pixels; j += step", "j <= z.pixels; j += step", "memory"),
        ("a piece past the end", "n - start < PIECE ? n - start : PIECE", "PIECE", "memory"),
        ("a piece weighs the wrong way", "first) * (n", "first) / (n", "values"),
        (
            "runs of a row overlap",
            "j += step) {\n        float normal",
            "j += 1) {\n        float normal",
            "values",
        ),
        ("every thread writes the sums", "if (threadIdx.x) return;\n    of_a", "of_a", "races"),
        ("all blocks write one place", "found[2 * blockIdx.x] =", "found[0] =", "races"),
    ),
    *of(
        "potential",
        ("pixels past the end", "if (pixel >= pixels) return;", "", "memory"),
        ("labels are not checked", "label >= 0 && label < classes", "true", "memory"),
        ("the own class among the others", "if (k == label) power = 0;", "", "values"),
        ("a block too large", "<<<blocks, 256>>>", "<<<blocks, 2048>>>", "values", "forward"),
    ),
)
# Cases that reach every kernel and every branch: the ends of their names.
CASES = {
    "attention": ("(2, 33, 31, 20), spread 1", "(2, 15, 47, 100), spread 1"),
    "rms_norm": (
        "(2, 65, 129) of 1, scale of each, shift True",
        "(2, 9, 2000) of 1, scale of each, shift True",
    ),
    "group_norm": (
        "(2, 6, 63, 2) of mean 3, maps no, FiLM True, SiLU True",
        "(2, 6, 63, 2) of mean 3, maps each, FiLM True, SiLU True",
        "(1, 2, 4097, 1) of mean 3, maps one, FiLM True, SiLU True",
    ),
    "potential": ("(2, 255), 19 classes, tau 1.0", "(2, 255), 19 classes, tau 2.0"),
}


def faulty(fault):
    """The operator with the fault. Raises ValueError where its text is not in the source."""
    operator = OPERATORS[fault.operator]
    in_header = fault.source == "header"
    before = operator.header if in_header else operator.sources[fault.source]
    parts, split = before.split(fault.text), fault.number + 1
    if len(parts) <= split:
        raise ValueError(
            f"{fault}: {fault.text!r} occurs {len(parts) - 1} times in the {fault.source}, and the "
            f"fault is in number {split}. Put it where the source has its like now"
        )
    head, tail = fault.text.join(parts[:split]), fault.text.join(parts[split:])
    after = head + fault.replacement + tail
    if in_header:
        return replace(operator, header=after)
    return replace(operator, sources={**operator.sources, fault.source: after})


def signs(operator, name, mode, folder):
    """What a mode shows of the operator: words, none where all seems well."""
    cases = [case for case in operator.cases("float32") if case.name.endswith(CASES[name])]
    if mode == "orders":
        results = [run(operator, cases, folder, "plain", order).outputs for order in ORDERS]
        bits = [[array.tobytes() for arrays in outputs for array in arrays] for outputs in results]
        return ["order"] if any(other != bits[0] for other in bits) else []

    outcome = run(operator, cases, folder, "plain" if mode == "values" else mode)
    words = [word for text, word in MESSAGES[mode].items() if text in outcome.messages]
    if mode == "values":
        wrong = errors(cases, outcome.outputs)
        words += ["NaN"] * any("not finite" in line for line in wrong)
        words += ["wrong"] * any("an error of" in line for line in wrong)
        words += ["crash"] * (outcome.exit_code != 0)
    return words


def table(folder):
    """Lines of Markdown: each fault, and what each mode shows of it."""
    rows = [(f"{name}: none", name, operator) for name, operator in OPERATORS.items()]
    rows += [(str(fault), fault.operator, faulty(fault)) for fault in FAULTS]
    yield f"| fault | {' | '.join(MODES)} |"
    yield "|---|" + "---|" * len(MODES)
    for label, name, operator in rows:
        cells = [", ".join(signs(operator, name, mode, folder)) for mode in MODES]
        yield f"| {label} | {' | '.join(cells)} |"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for line in table(temporary):
            print(line, flush=True)
