# SPDX-License-Identifier: Apache-2.0
"""What optimizers hold, and when they step: a global hook after each ``optimizer.step()``."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from ._names import plain_tensors

# A walk over every state costs about half a microsecond a tensor. Once it finds nothing new it is
# made every so many steps, unless the number of states says that something changed.
WALK_EVERY = 16


def recipe(optimizer: torch.optim.Optimizer) -> str:
    """The word for it in the estimates ("adamw", "sgd-momentum"), or "" when there is none."""
    options = optimizer.param_groups[0] if optimizer.param_groups else {}
    kind = type(optimizer).__name__
    if kind in ("Adam", "AdamW", "NAdam", "RAdam"):
        kind = kind.lower() if kind in ("Adam", "AdamW") else "adam"
        return kind + ("-amsgrad" if options.get("amsgrad") else "")
    if kind == "SGD":
        return "sgd-momentum" if options.get("momentum") else "sgd"
    if kind == "RMSprop":
        return (
            "rmsprop"
            + ("-momentum" if options.get("momentum", 0) > 0 else "")
            + ("-centered" if options.get("centered") else "")
        )
    return {"Adagrad": "adagrad", "LBFGS": "lbfgs"}.get(kind, "")


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield from plain_tensors(value)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _tensors_in(inner)


class Optimizers:
    """Calls `stepped(optimizer)` after each step of any optimizer, and names its state before."""

    def __init__(self, stepped: Callable[[torch.optim.Optimizer], None]) -> None:
        self._stepped = stepped
        self._known: weakref.WeakKeyDictionary[torch.optim.Optimizer, dict[str, Any]]
        self._known = weakref.WeakKeyDictionary()
        self._handle: Any = None
        self._warned = False
        self._state = torch.ops.torchtally.state.default
        self._gradient = torch.ops.torchtally.gradient.default
        self._describe = torch.ops.torchtally.describe_optimizer.default

    def install(self) -> None:
        self._handle = register_optimizer_step_post_hook(self._after_step)

    def begin(self) -> None:
        """A recording begins: what was seen before is named in it."""
        seen = list(self._known)
        self._known.clear()
        for optimizer in seen:
            self.watch(optimizer)

    def remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Names its parameters' optimizer, and the state that it has by now."""
        if optimizer in self._known:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        plain = [tensor for p in parameters for tensor in plain_tensors(p)]
        self._describe(type(optimizer).__name__, recipe(optimizer), plain)
        self._known[optimizer] = {"walks": 0, "count": -1, "ids": set(), "steps": 0, "moving": False,
                                  "wrapped": any(hasattr(p, "__tensor_flatten__") for p in parameters)}
        if optimizer.state:
            self._walk(optimizer)

    def _after_step(self, optimizer: torch.optim.Optimizer, _: object, __: object) -> None:
        if torch.compiler.is_compiling():  # traced, not run
            return
        try:
            self.watch(optimizer)
            self.look(optimizer)
            self._stepped(optimizer)
        except Exception as error:  # never the program's problem
            if not self._warned:
                self._warned = True
                kind = type(optimizer).__name__
                print(f"torchtally: a step of {kind} could not be looked at: {error!r}", file=sys.stderr)

    def look(self, optimizer: torch.optim.Optimizer) -> None:
        """Names new states, and gradients that autograd did not accumulate itself."""
        known = self._known[optimizer]
        if known["wrapped"]:
            self._look_at_gradients(optimizer)
        known["steps"] += 1
        count = sum(map(len, optimizer.state.values()))
        if (
            known["steps"] <= 3
            or known["moving"]
            or count != known["count"]
            or known["steps"] % WALK_EVERY == 0
        ):
            self._walk(optimizer)

    def _look_at_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Of parameters that wrap others, such as the shards of FSDP2, which writes their `.grad`."""
        gradients: list[torch.Tensor] = []
        parameters: list[torch.Tensor] = []
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if parameter.grad is not None:
                held = plain_tensors(parameter.grad)
                gradients += held
                parameters += plain_tensors(parameter)[: len(held)]
        if len(gradients) == len(parameters):
            self._gradient(gradients, parameters)

    def _walk(self, optimizer: torch.optim.Optimizer) -> None:
        known = self._known[optimizer]
        by_name: dict[str, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        ids = set()
        for parameter, states in optimizer.state.items():
            holder = parameter if isinstance(parameter, torch.Tensor) else None
            items = states.items() if isinstance(states, dict) else ((type(states).__name__, states),)
            for name, value in items:
                for tensor in _tensors_in(value):
                    ids.add(id(tensor))
                    tensors, parameters = by_name.setdefault(str(name), ([], []))
                    tensors.append(tensor)
                    parameters.append(plain_tensors(holder)[0] if holder is not None else tensor)
        for name, (tensors, parameters) in by_name.items():
            self._state(name, tensors, parameters)
        # New objects after the first steps: this optimizer makes its state anew each step.
        known["moving"] = known["walks"] >= 2 and not ids <= known["ids"]
        known["walks"] += 1
        known["ids"] = ids
        known["count"] = sum(map(len, optimizer.state.values()))
