# SPDX-License-Identifier: Apache-2.0
"""The command line: becomes the program that lies in this package."""

from __future__ import annotations

import os
import pathlib
import sys
from typing import NoReturn


def main() -> NoReturn:
    program = pathlib.Path(__file__).resolve().parent / "bin" / "torchtally"
    if not os.access(program, os.X_OK):
        sys.exit(f"torchtally: {program} is missing; install the package again")
    os.environ["TORCHTALLY_PYTHON"] = sys.executable  # `run` starts scripts with this Python
    os.execv(program, ["torchtally", *sys.argv[1:]])


if __name__ == "__main__":
    main()
