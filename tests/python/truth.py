# SPDX-License-Identifier: Apache-2.0
"""What a training step really holds, by torch's own means and without the profiler."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch


def storages(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    """Unique storages on the CPU: their address and their bytes."""
    found: dict[int, int] = {}
    for tensor in tensors:
        if tensor.layout != torch.strided:
            found |= storages([tensor._indices(), tensor._values()])
            continue
        storage = tensor.untyped_storage()
        if storage.nbytes():
            found[storage.data_ptr()] = storage.nbytes()
    return found


def size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(storages(tensors).values())


def tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for inner in value for tensor in tensors_in(inner)]
    return []


class _Packed:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class SavedTensors:
    """Everything that autograd keeps while it is used, as saved_tensors_hooks shows it."""

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        self._parameters = list(parameters)
        self._alive: list[weakref.ref[_Packed]] = []
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda p: p.tensor)

    def _pack(self, tensor: torch.Tensor) -> _Packed:
        packed = _Packed(tensor)
        self._alive.append(weakref.ref(packed))
        return packed

    def __enter__(self) -> SavedTensors:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def bytes(self) -> int:
        """Of unique storages that are kept now, without parameters."""
        kept = storages(p.tensor for p in (ref() for ref in self._alive) if p is not None)
        for pointer in storages(self._parameters):
            kept.pop(pointer, None)
        return sum(kept.values())


@dataclasses.dataclass
class Step:
    """What the step held, in bytes."""

    saved: list[int] = dataclasses.field(default_factory=list)  # one a backward pass
    gradient: int = 0  # when the step ends
    state: int = 0
    parameter: int = 0
    buffer: int = 0


@dataclasses.dataclass
class Job:
    """A training loop, made anew for each run from the same seed."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[int], torch.Tensor]  # of micro-batch number i
    steps: int = 3
    micro_steps: int = 1


def run(
    make: Callable[[], Job],
    around: Callable[[Job], Any] | None = None,
    measure: bool = False,
) -> tuple[list[float], dict[str, torch.Tensor], list[Step]]:
    """Losses, last gradients and, where wanted, what each step held."""
    torch.manual_seed(7)
    job = make()
    parameters = list(job.model.parameters())
    losses, steps = [], []
    context = around(job) if around else None
    if context is not None:
        context.__enter__()
    try:
        for number in range(job.steps):
            step = Step()
            for micro in range(job.micro_steps):
                if measure:
                    with SavedTensors(parameters) as saved:
                        loss = job.loss(number * job.micro_steps + micro)
                        step.saved.append(saved.bytes())
                    loss.backward()
                else:
                    loss = job.loss(number * job.micro_steps + micro)
                    loss.backward()
                losses.append(loss.item())
                del loss
            job.optimizer.step()
            if measure:
                step.gradient = size(p.grad for p in parameters if p.grad is not None)
                step.state = size(tensors_in(list(job.optimizer.state.values())))
                step.parameter = size(parameters)
                parameter_storages = storages(parameters)
                step.buffer = sum(
                    bytes_
                    for pointer, bytes_ in storages(job.model.buffers()).items()
                    if pointer not in parameter_storages
                )
                steps.append(step)
            if number < job.steps - 1:
                job.optimizer.zero_grad()
    finally:
        if context is not None:
            context.__exit__(None, None, None)
    gradients = {name: p.grad.clone() for name, p in job.model.named_parameters() if p.grad is not None}
    return losses, gradients, steps
