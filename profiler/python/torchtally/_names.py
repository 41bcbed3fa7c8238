# SPDX-License-Identifier: Apache-2.0
"""Which module runs, by its path: global hooks around each module's call, and what they know.

A module that nobody showed us is met at its first call: the outermost one is a root, and names all
that is in it. Nothing is kept alive and no module gets an attribute.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from ._config import config_text, find_config
from ._library import Library


def plain_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that hold the memory of one: itself, or what a wrapper such as DTensor holds."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return [tensor]
    inner, _ = flatten()
    return [plain for name in inner for plain in plain_tensors(getattr(tensor, name))]


class Names:
    """Paths of modules, by ``id(module)``, as the plug-in's numbers."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._numbers: dict[int, int] = {}
        self._alive: dict[int, weakref.ref[torch.nn.Module]] = {}
        self._roots: list[tuple[weakref.ref[torch.nn.Module], str]] = []
        self._described = 0  # roots that carry a configuration; of several none is the model
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
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

    # ---- hooks

    def install(self) -> None:
        numbers, meet = self._numbers, self._meet
        enter, leave = self._library.enter, self._library.exit
        is_compiling = torch.compiler.is_compiling

        def before(module: torch.nn.Module, _: object) -> None:
            if is_compiling():  # traced, not run
                return
            number = numbers.get(id(module))
            if number is None:
                try:
                    number = meet(module)
                except Exception:  # a module that does not let itself be walked has no name
                    return
            enter(number)

        def after(module: torch.nn.Module, _: object, __: object) -> None:
            if is_compiling():
                return
            number = numbers.get(id(module))
            if number is not None:
                leave(number)

        self._handles = [
            register_module_forward_pre_hook(before),
            register_module_forward_hook(after, always_call=True),
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def roots(self) -> Iterable[torch.nn.Module]:
        return [root for root in (reference() for reference, _ in self._roots) if root is not None]
