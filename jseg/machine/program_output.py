"""What another program prints. Standard library only."""

from __future__ import annotations

import subprocess


def program_output(*command: str, any_exit_code: bool = False) -> str:
    """What a command prints on both streams; "" if it cannot be run or fails.

    `any_exit_code`: a command that fails counts as well.
    """
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            universal_newlines=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout if any_exit_code or done.returncode == 0 else ""
