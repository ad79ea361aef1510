"""One part on one side in a process of its own: python -m jseg.parity.release.child SIDE PART
FOLDER KEY.

It writes parts/PART-SIDE.safetensors, the rows' arrays, and then parts/PART-SIDE.json: the key,
seconds by row, peak memory, nudges.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import List

import numpy as np

from jseg import checkpoint
from jseg.files import write_atomic
from jseg.parity.release.computing import measured
from jseg.parity.release.inputs import read, result_paths
from jseg.parity.release.parts import EXACT
from jseg.runtime import device, jt
from jseg.training.memory import peak_gigabytes


def main(argv: List[str]) -> None:
    side, part, folder, key = argv
    setting, inputs = read(Path(folder))
    chosen = device(setting.device)
    with contextlib.redirect_stdout(sys.stderr):  # the release prints
        if side == "ours":
            from jseg.parity.release.ours import Ours

            implementation = Ours(setting, inputs, Path(folder))
        else:
            from jseg.parity.release.official import Release

            implementation = Release(setting, inputs, Path(folder), exact_norms=side == EXACT)

        # The peak of memory is that of the computations, before what only the comparison needs.
        rows, seconds = {}, {}
        for computation in getattr(implementation, part)():
            arrays, best = measured(computation, setting.repetitions)
            rows.update(arrays)
            seconds.update((name.partition("/")[0], best) for name in arrays)
        peak = peak_gigabytes()
        results, record = result_paths(Path(folder), part, side)
        checkpoint.save(results, rows)
        about = {
            "key": key,
            "seconds": seconds,
            "gigabytes": peak,
            "nudges": implementation.nudges,
            "device": chosen,
            "jittor": jt.__version__,
            "numpy": np.__version__,
        }
        write_atomic(record, lambda file: file.write(json.dumps(about, indent=1).encode()))


if __name__ == "__main__":
    main(sys.argv[1:])
