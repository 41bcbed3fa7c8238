# SPDX-License-Identifier: Apache-2.0
"""What selective checkpoints keep for the backward pass: in a store of their own, not in the graph."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.utils.checkpoint

from ._library import Library
from ._names import plain_tensors


class Kept:
    """Tells each output that a selective checkpoint keeps, when it is kept and when it is used again."""

    def __init__(self, library: Library) -> None:
        self._library = library
        # Wraps each value that is kept; private, so without it they are what the program holds.
        self._wrapper: Any = getattr(torch.utils.checkpoint, "_VersionWrapper", None)
        if not hasattr(self._wrapper, "get_val"):
            self._wrapper = None
        self._before: Any = None

    def install(self) -> None:
        if self._wrapper is None:
            return
        keep, take, tell, reused = self._wrapper.__init__, self._wrapper.get_val, self._tell, self._library.reused

        @functools.wraps(keep)
        def told_keep(wrapper: Any, value: Any) -> None:
            keep(wrapper, value)
            tell(value)

        @functools.wraps(take)
        def told_take(wrapper: Any, *arguments: Any) -> Any:
            reused()  # the operator that would make it again does not run
            return take(wrapper, *arguments)

        self._before = (keep, take)
        self._wrapper.__init__, self._wrapper.get_val = told_keep, told_take

    def remove(self) -> None:
        if self._before is not None:
            self._wrapper.__init__, self._wrapper.get_val = self._before
        self._before = None

    def _tell(self, value: Any) -> None:
        if not isinstance(value, torch.Tensor) or torch.compiler.is_compiling():
            return
        try:
            for tensor in plain_tensors(value):
                self._library.keep(tensor.untyped_storage()._cdata)
        except Exception:  # a tensor without memory, as one that is traced
            return
