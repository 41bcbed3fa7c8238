# SPDX-License-Identifier: Apache-2.0
"""DistributedDataParallel and FSDP2 on two processes (gloo): each rank's books by its own means."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

import torchtally

HERE = pathlib.Path(__file__).parent


def run(folder: pathlib.Path, mode: str) -> list[dict]:
    paths = [str(HERE), str(pathlib.Path(torchtally.__file__).parent.parent)]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(HERE / "distributed_program.py"), mode, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, text=True, capture_output=True, timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"result{rank}.json").read_text()) for rank in (0, 1)]


def check(result: dict) -> list[dict]:
    """Each step with its truth: {"device": .., "truth": ..}."""
    assert result["plain"] == result["recorded"]
    steps = result["data"]["steps"]
    assert len(steps) == len(result["steps"]) == 3
    checked = []
    for step, truth in zip(steps, result["steps"]):
        device = step["devices"]["cpu"]
        for mark in device["marks"]:
            where = f"step {step['index']} at {mark['name']}: {mark['roles']}"
            assert mark["difference"] == 0, where
            assert sum(mark["roles"].values()) == mark["bytes"], where
            assert mark["roles"]["unattributed"] == 0, where
            assert mark["roles"]["parameter"] == truth["parameter"], where
            if mark["name"] == "forward_edge":
                assert mark["roles"]["input"] == truth["batch"], where
        end = device["marks"][-1]
        assert end["name"] == "end"
        assert end["roles"]["gradient"] == truth["gradient"]
        assert end["roles"]["optimizer_state"] == truth["optimizer_state"]
        checked.append({"device": device, "truth": truth})
    return checked


def mark_of(device: dict, name: str) -> dict:
    return next(mark for mark in device["marks"] if mark["name"] == name)


def sums(sizes: list[int]) -> set[int]:
    """Of any of them."""
    return {0} if not sizes else {rest + more for rest in sums(sizes[1:]) for more in (0, sizes[0])}


@pytest.mark.parametrize("mode", ["ddp", "ddp_view"])
def test_ddp(tmp_path, mode):
    for rank, result in enumerate(run(tmp_path, mode)):
        assert result["path"].endswith(f"run.rank{rank}.tally")
        for step in check(result):
            roles = mark_of(step["device"], "backward_end")["roles"]
            # With buckets of their own they are a row as large as all gradients; where each gradient is a
            # view of its bucket, the same bytes are counted once.
            buckets = step["truth"]["gradient"] if mode == "ddp" else 0
            # What DDP sent when it made its buckets anew (an int32 for each of the six parameters and their
            # count, and one for the size of the one bucket) gloo's own thread may hold a little longer.
            assert roles["communication"] - buckets in sums([7 * 4, 4])
            assert roles["gradient"] == step["truth"]["gradient"]


@pytest.mark.parametrize("mode", ["fsdp", "fsdp_keep"])
def test_fsdp2(tmp_path, mode):
    for result in run(tmp_path, mode):
        at_end = []
        for step in check(result):
            truth, device = step["truth"], step["device"]
            assert truth["parameter"] < 0.6 * truth["whole"]  # half, and some padding
            gathered = {mark["name"]: mark["roles"]["communication"] for mark in device["marks"]}
            # Whole parameters are there only between gathering and resharding; the last layer's may be
            # there already for the backward pass, and what a layer was gathered into gloo's own thread may
            # hold a little longer.
            kept = truth["whole"] if mode == "fsdp_keep" else 0
            assert gathered["forward_edge"] - kept in sums(truth["layers"])
            assert gathered["backward_end"] > 0
            at_end.append(gathered["end"])
        assert min(at_end) == 0 and set(at_end) <= sums(truth["layers"])
