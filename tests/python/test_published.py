# SPDX-License-Identifier: Apache-2.0
"""A published table: ResNet-50, batch 16, Adam, on a CPU, as torch's MemTracker counts it."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch

import torchtally
import truth
from torchtally._program import PROGRAM


def mib(size: float) -> float:
    return round(size / 2**20, 2)


def test_resnet50_as_memtracker_counts_it(tmp_path):
    models = pytest.importorskip("torchvision", reason="torchvision is not installed").models
    # One output: the table's 89.68 MiB leave no more for the head. Its gradients are never zeroed.
    model = models.resnet50(num_classes=1)
    optimizer = torch.optim.Adam(model.parameters())
    with torchtally.profile(model, optimizer, recording=tmp_path / "run.tally") as p:
        for _ in range(2):
            images = torch.randn(16, 3, 224, 224)
            model(images).sum().backward()
            optimizer.step()
    step = p.data()["steps"][1]["devices"]["cpu"]
    marks = {mark["name"]: mark for mark in step["marks"]}
    for mark in marks.values():
        assert mark["difference"] == 0 and mark["roles"]["unattributed"] == 0
    roles = marks["end"]["roles"]
    assert (mib(roles["parameter"]), mib(roles["gradient"]), mib(roles["optimizer_state"])) == (89.68, 89.68, 179.37)
    assert roles["parameter"] == truth.size(model.parameters())
    assert roles["gradient"] == truth.size(p.grad for p in model.parameters())
    assert roles["optimizer_state"] == truth.size(truth.tensors_in(list(optimizer.state.values())))
    assert roles["buffer"] == truth.size(model.buffers())

    # That tool's peak, 1682.14 MiB, is a moment of the timeline: the backward pass of the last block
    # begins, and two gradients of its output (6.125 MiB each) stand beside what the forward pass kept.
    trace = tmp_path / "trace.json"
    command = [PROGRAM, "export", tmp_path / "run.tally", "--step", "1", "--format", "chrome-trace", "--output", trace]
    subprocess.run(command, check=True, capture_output=True)
    moments = [
        event["args"]
        for event in json.loads(trace.read_text())["traceEvents"]
        if event["ph"] == "C" and event["name"].startswith("bytes alive")
    ]
    theirs = [moment for moment in moments if mib(sum(moment.values())) == 1682.14]
    assert (1310.95, 12.25) in {
        (mib(moment["activations"] + moment["inputs"]), mib(moment["temporaries, backward"])) for moment in theirs
    }
    # The allocator has more a little later: what an operator of the backward pass needs inside.
    assert step["peak"]["bytes"] >= max(sum(moment.values()) for moment in theirs)
    assert step["peak"]["phase"] == "backward"
