"""Jittor and our networks on an emulated CUDA device: Jittor's own kernels, ours, and those of the
networks run on the CPU, and gpu_check holds their results against Jittor's CPU operators.

Needs g++ and CUDA's headers from PyPI, which `make cuda-emulate` installs; no GPU, driver or nvcc.
Everything is in --folder. The first run compiles Jittor and all kernels.

  python benchmarks/cuda_emulation.py
  python benchmarks/cuda_emulation.py --only kernels losses
"""

import argparse
import os
import subprocess
import sys
import time

from jseg.parity.cuda_emulation.device import toolkit

# Of gpu_check, all that compares; times of an emulation say nothing of a GPU's, but the groups
# "speed" hold each precision against float32.
GROUPS = ("bring-up", "kernels", "layers", "networks", "losses", "fallbacks", "speed")
WITH_OURS = ("layers", "networks", "losses")  # again, with all operators of ours
OURS = "group_norm,rms_norm,attention"  # those with CUDA source that networks can do without
MINUTES = 180


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = os.path.join(os.path.expanduser("~"), ".cache", "jseg", "cuda-emulation")
    parser.add_argument("--folder", default=cache, help=f"of all that is built (default {cache})")
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", default=GROUPS)
    args = parser.parse_args()
    folder = os.path.abspath(args.folder)
    try:
        os.makedirs(folder, exist_ok=True)
        top = toolkit.build(folder)
    except FileExistsError:
        print(f"cuda_emulation: --folder {folder} is a file; expected a folder", file=sys.stderr)
        return 2
    except (toolkit.ToolkitError, OSError) as error:
        print(f"cuda_emulation: {error}", file=sys.stderr)
        return 2

    start, failed = time.time(), 0
    variables = toolkit.environment(top)
    print(f"Jittor's first compilation and all kernels go into {folder}", flush=True)
    failed += check(variables, folder, "as_used", args.only)
    again = [group for group in args.only if group in WITH_OURS]
    if again:
        failed += check(dict(variables, JSEG_FUSED=OURS), folder, "with_ours", again)
    print(
        f"cuda_emulation: {time.time() - start:.0f} s, {'FAILED' if failed else 'nothing failed'}"
    )
    return 1 if failed else 0


def check(variables, folder, name, groups):
    """Run gpu_check's groups on the emulated device; its exit code. Its table is NAME-GROUPS.md."""
    words = ["--device", "cuda", "--size", "tiny", "--minutes", str(MINUTES)]
    output = os.path.join(folder, "-".join([name, *groups]))  # other groups, other tables
    command = [sys.executable, "-m", "jseg", "gpu_check", *words, "--output", output]
    return subprocess.call([*command, "--only", *groups], env=variables)


if __name__ == "__main__":
    sys.exit(main())
