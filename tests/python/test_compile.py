# SPDX-License-Identifier: Apache-2.0
"""torch.compile on the CPU: what a compiled region saved is an activation, results stay the same."""

from __future__ import annotations

import os
import shutil
import sysconfig
import warnings

import pytest
import torch
from torch import nn

import torchtally
import truth


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def has_python_headers() -> bool:
    return os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))


def saved_by(node: torch.autograd.graph.Node | None, parameters: list[torch.Tensor]) -> int:
    """Bytes that the compiled region's one node keeps, without parameters."""
    assert node is not None and type(node).__name__ == "CompiledFunctionBackward"
    kept = truth.storages(node.saved_tensors)
    for pointer in truth.storages(parameters):
        kept.pop(pointer, None)
    return sum(kept.values())


def train(
    backend: str, path: os.PathLike[str] | None
) -> tuple[list[float], list[torch.Tensor], list[int], int, torchtally.profile | None]:
    """Losses, weights, bytes saved by each step's region, bytes of the last gradients, the profile."""
    torch.manual_seed(3)
    model = nn.Sequential(*(Block(16) for _ in range(3)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    parameters = list(model.parameters())

    @torch.compile(backend=backend)
    def compute(x: torch.Tensor) -> torch.Tensor:
        return model(x).square().mean()

    def data(number: int) -> torch.Tensor:
        return torch.randn(8, 16, generator=torch.Generator().manual_seed(number))

    compute(data(9)).backward()  # compiled before anybody watches
    optimizer.zero_grad()
    losses, kept, profile = [], [], None
    if path is not None:
        profile = torchtally.profile(model, optimizer, recording=path)
        profile.__enter__()
    for number in range(3):
        loss = compute(data(number))
        kept.append(saved_by(loss.grad_fn, parameters))
        loss.backward()
        losses.append(loss.item())
        del loss
        optimizer.step()
        gradients = truth.size(p.grad for p in parameters)
        optimizer.zero_grad()
    if profile is not None:
        profile.__exit__(None, None, None)
    return losses, [p.detach().clone() for p in parameters], kept, gradients, profile


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_regions_saved_tensors_are_activations(tmp_path, backend):
    if backend == "inductor" and not (shutil.which("g++") and has_python_headers()):
        pytest.skip("inductor compiles C++ for the CPU, and needs g++ and Python.h")
    plain = train(backend, None)
    losses, weights, kept, gradients, profile = train(backend, tmp_path / "run.tally")
    assert losses == plain[0]
    assert all(torch.equal(a, b) for a, b in zip(weights, plain[1]))
    assert kept[0] > 0
    data = profile.data()
    assert len(data["steps"]) == 3
    for step, saved in zip(data["steps"], kept):
        device = step["devices"]["cpu"]
        for mark in device["marks"]:
            assert mark["difference"] == 0
            assert sum(mark["roles"].values()) == mark["bytes"]
            assert mark["roles"]["unattributed"] == 0, mark
        edge = next(mark for mark in device["marks"] if mark["name"] == "forward_edge")
        # The batch is saved as well; it is an input.
        assert edge["roles"]["activation"] + edge["roles"]["input"] == saved
        assert edge["roles"]["input"] == 8 * 16 * 4
        backward = next(mark for mark in device["marks"] if mark["name"] == "backward_end")
        assert backward["roles"]["gradient"] == gradients
        # Products go to a library's kernels, which are operators; each has two in the backward pass.
        products = 3 * 2 * (2 * 8 * 16 * 64)
        assert step["flops"]["forward"] == products
        assert step["flops"]["backward"] == 2 * products


@pytest.mark.parametrize("how", ["torch.compile(module)", "module.compile()", "torch.compile(function)"])
def test_a_recording_makes_nothing_compile_again(tmp_path, how):
    """Neither what was compiled before it nor, after it, what was compiled meanwhile; without a warning."""
    compiled = 0

    def backend(graph, _):
        nonlocal compiled
        compiled += 1
        return graph.forward

    def program():
        model = nn.Sequential(Block(4), Block(4))
        if how == "module.compile()":
            model.compile(backend=backend)
            return model, model
        if how == "torch.compile(module)":
            return model, torch.compile(model, backend=backend)
        return model, torch.compile(lambda x: model(x), backend=backend)

    def compute(call):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*global hooks")
            for _ in range(2):
                call(torch.ones(2, 4)).sum().backward()

    torch._dynamo.reset()
    model, call = program()
    compute(call)
    once = compiled
    with torchtally.profile(model, recording=tmp_path / "run.tally"):
        compute(call)
    compute(call)
    assert compiled == once > 0

    torch._dynamo.reset()
    model, call = program()
    with torchtally.profile(model, recording=tmp_path / "run.tally"):
        compute(call)
    compute(call)
    with torchtally.profile(model, recording=tmp_path / "run.tally"):
        compute(call)
    assert compiled == 2 * once
