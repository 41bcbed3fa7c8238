# SPDX-License-Identifier: Apache-2.0
"""Runs a script or a module as ``python`` would, with a profiler around it (``torchtally run``)."""

from __future__ import annotations

import os
import runpy
import sys
from typing import NoReturn

_OPTIONS = ("RECORDING", "REPORT", "BUDGET", "STEPS", "PYTHON")


def _take_options() -> dict[str, str]:
    """The options of `run`, removed from the environment: the script and its children see none."""
    return {name: os.environ.pop("TORCHTALLY_" + name, "") for name in _OPTIONS}


def _run(target: list[str]) -> None:
    if target[0] == "-m":
        sys.argv[:] = target[1:]
        runpy.run_module(target[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = target
        sys.path[0] = os.path.dirname(os.path.abspath(target[0]))
        runpy.run_path(target[0], run_name="__main__")


def main() -> NoReturn:
    target = sys.argv[1:]
    options = _take_options()
    from ._library import TallyError
    from ._profile import Profile

    try:
        profiler = Profile(
            recording=options["RECORDING"] or "run.tally",
            report=options["REPORT"] or None,
            steps=options["STEPS"] or None,
            budget=options["BUDGET"] or None,
        )
        profiler.start()
    except (TallyError, ValueError) as error:
        print(f"torchtally: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        with profiler.running():
            _run(target)
    except BaseException as error:
        _hide_own_frames(error)
        raise
    sys.exit(0)


def _hide_own_frames(error: BaseException) -> None:
    """The traceback begins in the script, as without us."""
    trace = error.__traceback__
    here = os.path.dirname(os.path.abspath(__file__))
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if os.path.dirname(os.path.abspath(file)) != here and "runpy" not in file:
            break
        trace = trace.tb_next
    if trace is not None:
        error.__traceback__ = trace


if __name__ == "__main__":
    main()
