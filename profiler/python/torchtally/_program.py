# SPDX-License-Identifier: Apache-2.0
"""The command line that lies in this package, asked and answered; it needs no torch."""

from __future__ import annotations

import pathlib
import subprocess

PROGRAM = pathlib.Path(__file__).resolve().parent / "bin" / "torchtally"


def ask(*arguments: str, given: str | None = None) -> str:
    """What ``torchtally ARGUMENTS`` prints, `given` as its input. Raises ValueError with its sentence."""
    result = subprocess.run(
        [str(PROGRAM), *arguments], input=given if given is not None else "", capture_output=True, text=True
    )
    if result.returncode != 0:
        raise ValueError(result.stderr.strip().removeprefix("torchtally: "))
    return result.stdout
