# SPDX-License-Identifier: Apache-2.0
"""Pinned host memory of real programs on the virtual card: a device of its own whose books close at every
mark against the statistics of LibTorch's host allocator."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchtally
from torch.utils.data import DataLoader, TensorDataset

BATCH, WIDTH = 8, 100


def loader(workers: int) -> DataLoader:
    dataset = TensorDataset(torch.ones(6 * BATCH, WIDTH), torch.ones(6 * BATCH, dtype=torch.long))
    return DataLoader(dataset, batch_size=BATCH, pin_memory=True, num_workers=workers)


def train(path: Path, workers: int, keep: list[torch.Tensor] | None = None) -> dict:
    profile = torchtally.profile(recording=path / "run.tally")
    model = torch.nn.Linear(WIDTH, 10, device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with profile:
        for x, y in loader(workers):
            assert x.is_pinned() and y.is_pinned()
            if keep is not None:
                keep.append(x)
            output = model(x.to("cuda", non_blocking=True))
            torch.nn.functional.cross_entropy(output, y.to("cuda", non_blocking=True)).backward()
            optimizer.step()
            optimizer.zero_grad()
    return profile.data()


def books(data: dict) -> list[dict]:
    """Of each step that has them; checks that they close."""
    assert data["devices"][-1]["id"] == "pinned"
    found = [step["devices"]["pinned"] for step in data["steps"] if "pinned" in step["devices"]]
    for device in found:
        assert device["largest_difference"] == 0
        for mark in device["marks"]:
            assert mark["difference"] == 0 and sum(mark["roles"].values()) == mark["bytes"], mark
            caching = mark["caching"]
            assert caching["exact"], mark
            if caching["allocator_reserved_bytes"] is not None:
                assert caching["allocator_reserved_bytes"] == caching["reserved_bytes"], mark
                if mark["name"] != "peak":
                    assert caching["allocator_active_bytes"] in (None, caching["active_bytes"]), mark
    return found


def edge(device: dict) -> dict:
    return next(mark for mark in device["marks"] if mark["name"] == "forward_edge")


def test_batches_are_inputs_to_the_byte(tmp_path: Path) -> None:
    steps = books(train(tmp_path, workers=0))
    assert len(steps) == 6
    for step in steps:
        mark = edge(step)
        assert mark["bytes"] == mark["roles"]["input"] == BATCH * WIDTH * 4 + BATCH * 8
        assert mark["caching"]["active_bytes"] == 4096 + 64
        assert step["marks"][-1]["bytes"] in (0, mark["bytes"])  # the loop still has the last one


def test_what_the_program_keeps_grows(tmp_path: Path) -> None:
    kept: list[torch.Tensor] = []
    steps = books(train(tmp_path, workers=0, keep=kept))
    assert [edge(step)["bytes"] for step in steps] == [
        (i + 1) * BATCH * WIDTH * 4 + BATCH * 8 for i in range(6)
    ]


def test_the_pin_thread_of_a_loader(tmp_path: Path) -> None:
    """It pins ahead: at least the batch that is read is there, and at most what the loader prefetches."""
    steps = books(train(tmp_path, workers=1))
    one = BATCH * WIDTH * 4 + BATCH * 8
    for step in steps:
        assert one <= edge(step)["bytes"] <= 6 * one
        assert edge(step)["bytes"] % (BATCH * 8) == 0
        assert edge(step)["roles"]["input"] >= one


def test_the_programs_statistics_are_its_own(tmp_path: Path) -> None:
    torch.cuda.init()
    with torchtally.profile(recording=tmp_path / "run.tally"):
        before = torch.cuda.host_memory_stats()
        held = torch.empty(1 << 20, dtype=torch.uint8, pin_memory=True)
        after = torch.cuda.host_memory_stats()
    assert held.is_pinned()
    assert after["active_bytes.allocated"] - before.get("active_bytes.allocated", 0) == 1 << 20


@pytest.mark.parametrize("sessions", [3])
def test_a_tensor_outlives_its_session(tmp_path: Path, sessions: int) -> None:
    held = []
    for i in range(sessions):
        with torchtally.profile(recording=tmp_path / f"{i}.tally"):
            held.append(torch.empty(100, pin_memory=True))
    del held
    torch.empty(100, pin_memory=True)
