# SPDX-License-Identifier: Apache-2.0
"""Which module runs, by its path: what is done around each module's call, and what it knows.

A module that nobody showed us is met at its first call: the outermost one is a root, and names all
that is in it. Nothing is kept alive and no module gets an attribute.

``torch.nn.Module._call_impl`` has ours around it while a recording goes on. Global forward hooks would
do, but with any of them torch leaves its short path for every module, which alone costs more than all
that is done here (docs/benchmarks.md); and torch.compile warns, and compiles again when they go.
"""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ._config import config_text, find_config
from ._library import Library


def plain_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that hold the memory of one: itself, or what a wrapper such as DTensor holds."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return [tensor]
    inner, _ = flatten()
    return [plain for name in inner for plain in plain_tensors(getattr(tensor, name))]


# Numbers by id(module), what gives an unknown one its number, what to call before and after.
_Watch = tuple[
    dict[int, int], Callable[[torch.nn.Module], int], Callable[[int], None], Callable[[int], None]
]
# Of the recording that goes on. Here and not in a closure, because what torch.compile made of a
# program's modules meanwhile looks at the closures of what it passed through, and would be made again
# when they go.
_watch: _Watch | None = None
_call: Callable[..., Any] = torch.nn.Module._call_impl  # what is called for a module without us
_installed = False


def _call_watched(module: torch.nn.Module, /, *args: Any, **kwargs: Any) -> Any:
    if torch.compiler.is_compiling() or _watch is None:  # traced and not run, or over
        return _call(module, *args, **kwargs)
    numbers, meet, enter, leave = _watch
    number = numbers.get(id(module))
    if number is None:
        with contextlib.suppress(Exception):  # one that does not let itself be walked has no name
            number = meet(module)
        if number is None:
            return _call(module, *args, **kwargs)
    enter(number)
    try:
        return _call(module, *args, **kwargs)
    finally:
        leave(number)


def _set_call_impl(call: Callable[..., Any]) -> None:
    torch.nn.Module._call_impl = call  # type: ignore[method-assign]


def _pass_over(code: types.CodeType) -> None:
    """torch.compile leaves this frame alone, as it does torch's own around a module's call."""
    try:
        from torch._C._dynamo import eval_frame

        skip = eval_frame._FrameExecStrategy(eval_frame._FrameAction.SKIP, eval_frame._FrameAction.DEFAULT)
        eval_frame.set_code_exec_strategy(code, skip)
    except (ImportError, AttributeError, TypeError):  # another torch: the frame is compiled as well
        pass


class Names:
    """Paths of modules, by ``id(module)``, as the plug-in's numbers."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._numbers: dict[int, int] = {}
        self._alive: dict[int, weakref.ref[torch.nn.Module]] = {}
        self._roots: list[tuple[weakref.ref[torch.nn.Module], str]] = []
        self._described = 0  # roots that carry a configuration; of several none is the model
        self._watch = torch.ops.torchtally.watch.default

    # ---- names

    def watch(self, module: torch.nn.Module, name: str = "") -> None:
        """Names a module and all in it: "" as the module itself does, else below `name`."""
        label = name or type(module).__name__
        if not any(root() is module for root, _ in self._roots):
            self._roots.append((weakref.ref(module), name))
            self._describe(module)
        names, types = [], []
        tensors: list[torch.Tensor] = []
        tensor_names, tensor_modules, is_buffer = [], [], []
        for path, child in module.named_modules():
            full = f"{name}.{path}" if name and path else path or label
            prefix = f"{name}.{path}" if name and path else name or path
            if not self._known(child):
                names.append(full)
                types.append(type(child).__name__)
            self._remember(child, full)
            for own, buffer in (
                *((item, False) for item in child._parameters.items()),
                *((item, True) for item in child._buffers.items()),
            ):
                key, tensor = own
                if tensor is None or torch.nn.parameter.is_lazy(tensor):
                    continue
                for plain in plain_tensors(tensor):
                    tensors.append(plain)
                    tensor_names.append(f"{prefix}.{key}" if prefix else key)
                    tensor_modules.append(full)
                    is_buffer.append(int(buffer))
        self._watch(names, types, tensors, tensor_names, tensor_modules, is_buffer)

    def _describe(self, module: torch.nn.Module) -> None:
        """For the report's closed forms: the configuration of the one model that has one."""
        try:
            config = find_config(module)
            text = config_text(config) if config is not None else ""
        except Exception:  # a model of another library may carry anything
            return
        if text:
            self._described += 1
            self._library.describe_model(text.encode() if self._described == 1 else b"")

    def _known(self, module: torch.nn.Module) -> bool:
        known = self._alive.get(id(module))
        return known is not None and known() is module

    def _remember(self, module: torch.nn.Module, name: str) -> int:
        key = id(module)
        if self._known(module):  # shared: the first name stays
            return self._numbers[key]
        number: int = self._library.intern(name.encode())
        numbers, alive = self._numbers, self._alive  # not self: it would live as long as the module

        def forget(_: object) -> None:
            numbers.pop(key, None)
            alive.pop(key, None)

        self._numbers[key] = number
        self._alive[key] = weakref.ref(module, forget)
        return number

    def _meet(self, module: torch.nn.Module) -> int:
        """A module that is not known yet is called."""
        if self._library.depth() > 0:
            self._roots = [root for root in self._roots if root[0]() is not None]
            for reference, name in self._roots:  # a layer that was added later
                root = reference()
                if root is not None and any(child is module for child in root.modules()):
                    self.watch(root, name)
                    return self._numbers[id(module)]
            return self._remember(module, type(module).__name__)
        holds = next(module.parameters(), None) is not None
        first = not any(
            next(root.parameters(), None) is not None
            for root in (reference() for reference, _ in self._roots)
            if root is not None
        )
        self.watch(module, "" if first and holds else self._free_name(type(module).__name__))
        return self._numbers[id(module)]

    def _free_name(self, name: str) -> str:
        taken = {taken for _, taken in self._roots}
        number = 2
        free = name
        while free in taken:
            free, number = f"{name}_{number}", number + 1
        return free

    # ---- calls

    def install(self) -> None:
        global _watch, _call, _installed
        _watch = (self._numbers, self._meet, self._library.enter, self._library.exit)
        current = torch.nn.Module._call_impl
        if not _installed or current is _call:
            _pass_over(_call_watched.__code__)
            _call, _installed = current, True
            _set_call_impl(_call_watched)

    def remove(self) -> None:
        global _watch, _installed
        _watch = None
        # Where another tool has put its own around ours meanwhile, ours stays and passes on.
        if torch.nn.Module._call_impl is _call_watched:
            _set_call_impl(_call)
            _installed = False

    def roots(self) -> Iterable[torch.nn.Module]:
        return [root for root in (reference() for reference, _ in self._roots) if root is not None]
