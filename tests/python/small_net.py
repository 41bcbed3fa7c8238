# SPDX-License-Identifier: Apache-2.0
"""A small net for tests of verdicts, and how it is trained under the profiler."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

import torchtally

torch.set_num_threads(2)

WIDTH, BATCH, BLOCKS = 32, 512, 4


class Block(torch.nn.Module):
    """Autograd keeps two hidden tensors of it."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(width, width), torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(torch.tanh(self.first(x))))


class Net(torch.nn.Module):
    def __init__(self, wrap: Callable[..., torch.Tensor] | None = None, classes: int = WIDTH,
                 width: int = WIDTH, has_input: bool = True) -> None:
        super().__init__()
        self.input = torch.nn.Linear(width, width) if has_input else torch.nn.Identity()
        self.h = torch.nn.ModuleList(Block(width) for _ in range(BLOCKS))
        self.head = torch.nn.Linear(width, classes)
        self.wrap = wrap

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.input(x)
        for block in self.h:
            x = self.wrap(block, x) if self.wrap else block(x)
        return self.head(x)


each = functools.partial(checkpoint, use_reentrant=False)
reentrant = functools.partial(checkpoint, use_reentrant=True)


def squares(out: torch.Tensor) -> torch.Tensor:
    return out.square().mean()


def trained(folder: Any, model: torch.nn.Module, step: Callable[..., None], steps: int = 3,
            make: Any = torch.optim.SGD, **options: Any) -> Any:
    """Records `step(model, optimizer)`, which ends with an update."""
    optimizer = make(model.parameters(), lr=0.01, **options)
    with torchtally.profile(model, optimizer, recording=folder / "run.tally") as p:
        for _ in range(steps):
            step(model, optimizer)
    for recorded in p.data()["steps"]:
        for mark in recorded["devices"]["cpu"]["marks"]:
            assert mark["difference"] == 0
    return p


def once(model: torch.nn.Module, optimizer: torch.optim.Optimizer, width: int = WIDTH, batch: int = BATCH) -> None:
    optimizer.zero_grad()
    squares(model(torch.ones(batch, width))).backward()
    optimizer.step()


def evidence(p: Any, kind: str) -> str:
    return "\n".join(next(v for v in p.data()["verdicts"] if v["kind"] == kind)["evidence"])
