# SPDX-License-Identifier: Apache-2.0
"""The plug-in: found, checked against the torch that runs, loaded, its functions with types."""

from __future__ import annotations

import ctypes
import functools
import pathlib
import sysconfig
from typing import Any

import torch

from . import _build

PACKAGE = pathlib.Path(__file__).resolve().parent
PLUGIN = PACKAGE / "lib" / "libtorchtally_python.so"


class TallyError(RuntimeError):
    """The profiler cannot start or read a recording; the text says why and what to do."""


class TorchVersionError(TallyError, ImportError):
    """This package was built for another torch than the one that runs."""


def _rebuild_command() -> str:
    source = _build.SOURCE if pathlib.Path(_build.SOURCE, "pyproject.toml").exists() else "."
    return f"pip install --force-reinstall --no-deps --no-cache-dir {source}"


def _check_version() -> None:
    if str(torch.__version__) != _build.TORCH_VERSION:
        raise TorchVersionError(
            f"torchtally was built for torch {_build.TORCH_VERSION}, and torch {torch.__version__} is "
            f"installed; rebuild it with: {_rebuild_command()}"
        )


class Library:
    """The plug-in's plain functions; its operators are ``torch.ops.torchtally``."""

    def __init__(self) -> None:
        _check_version()
        try:
            torch.ops.load_library(str(PLUGIN))  # type: ignore[no-untyped-call]
        except OSError as error:
            raise TallyError(
                f"the plug-in {PLUGIN} cannot be loaded ({error}); rebuild it with: {_rebuild_command()}"
            ) from None
        # Calls that keep Python's lock cost least; the long ones give it up.
        quick = ctypes.PyDLL(str(PLUGIN))
        slow = ctypes.CDLL(str(PLUGIN))
        text, number, nothing = ctypes.c_char_p, ctypes.c_uint32, None

        def bind(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
            function = getattr(library, "torchtally_" + name)
            function.restype = result
            function.argtypes = arguments
            return function

        self.start = bind(
            slow, "start", text, text, text, *[ctypes.c_int64] * 3, *[ctypes.c_int] * 2
        )
        pass_over = bind(quick, "pass_over", nothing, text)
        self.stop = bind(slow, "stop", nothing, text, text)
        self.step_begin = bind(slow, "step_begin", nothing)
        self.step_end = bind(slow, "step_end", nothing, ctypes.c_int)
        self.next_step = bind(slow, "next_step", nothing)
        self.step_discard = bind(slow, "step_discard", nothing)
        self.micro_step = bind(quick, "micro_step", nothing)
        self.records = bind(quick, "records", ctypes.c_int)
        self.recording_path = bind(quick, "recording_path", text)
        self.report_path = bind(quick, "report_path", text)
        self.describe_model = bind(quick, "describe_model", nothing, text)
        self.intern = bind(quick, "intern", number, text)
        self.enter = bind(quick, "enter", nothing, number)
        self.exit = bind(quick, "exit", nothing, number)
        # Called for every module: to convert a number to its type takes as long as the call.
        self.enter.argtypes = self.exit.argtypes = None
        self.reused = bind(quick, "reused", nothing)
        self.keep = bind(quick, "keep", nothing, ctypes.c_uint64)
        self.depth = bind(quick, "depth", number)
        # A source line is the program's: neither torch's, nor the interpreter's, nor ours.
        folders = [pathlib.Path(torch.__file__).parent, PACKAGE, sysconfig.get_path("stdlib")]
        pass_over("\n".join(map(str, folders)).encode())
        self._text = bind(quick, "text", text, ctypes.POINTER(text))
        self._json = bind(quick, "json", text, ctypes.POINTER(text))

    def _report(self, function: Any) -> str:
        error = ctypes.c_char_p()
        result = function(ctypes.byref(error))
        if error.value is not None:
            raise TallyError(error.value.decode())
        return str(result.decode())

    def text(self) -> str:
        return self._report(self._text)

    def json(self) -> str:
        return self._report(self._json)


@functools.cache
def library() -> Library:
    """Loads the plug-in at the first call. Raises TorchVersionError or TallyError."""
    return Library()
