# SPDX-License-Identifier: Apache-2.0
"""Runs a script or a module as ``python`` would, with a profiler around it (``torchtally run``)."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import types
from typing import NoReturn

_OPTIONS = ("RECORDING", "REPORT", "BUDGET", "BUDGET_ACTION", "STEPS", "SOURCE_LINES", "PYTHON")


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
            budget_stops=options["BUDGET_ACTION"] == "stop",
            source_lines=options["SOURCE_LINES"] or True,
        )
        profiler.start()
    except (TallyError, ValueError) as error:
        print(f"torchtally: {error}", file=sys.stderr)
        sys.exit(2)
    _show_tracebacks_of_script()
    with profiler.running():
        _run(target)
    sys.exit(0)


def _show_tracebacks_of_script() -> None:
    """They begin in the script, as without us."""
    before = sys.excepthook
    here = os.path.dirname(os.path.abspath(__file__))

    def is_ours(trace: types.TracebackType) -> bool:
        file = trace.tb_frame.f_code.co_filename
        return file.startswith("<frozen runpy") or file.endswith("/runpy.py") or (
            os.path.dirname(os.path.abspath(file)) in (here, os.path.dirname(contextlib.__file__))
        )

    def show(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        first = trace
        while first is not None and is_ours(first):
            first = first.tb_next
        error.__traceback__ = first or trace
        before(kind, error, first or trace)

    sys.excepthook = show


if __name__ == "__main__":
    main()
