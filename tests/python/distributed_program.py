# SPDX-License-Identifier: Apache-2.0
"""Trains on two processes with and without the profiler; test_distributed.py starts it and judges."""

from __future__ import annotations

import json
import pathlib
import sys

import torch
import torch.distributed as dist

import torchtally
import truth

torch.set_num_threads(1)


def make(mode: str):
    torch.manual_seed(11)
    model = torch.nn.Sequential(
        torch.nn.Linear(32, 64), torch.nn.Tanh(), torch.nn.Linear(64, 48), torch.nn.Tanh(), torch.nn.Linear(48, 8)
    )
    if mode.startswith("ddp"):
        wrapped = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=mode == "ddp_view")
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in model:
            if isinstance(layer, torch.nn.Linear):
                fully_shard(layer, mesh=mesh, reshard_after_forward=mode == "fsdp")
        fully_shard(model, mesh=mesh)
        wrapped = model
    return model, wrapped, torch.optim.AdamW(wrapped.parameters(), lr=0.01)


def whole(parameters) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def local(tensors) -> list[torch.Tensor]:
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]


def train(model, wrapped, optimizer) -> tuple[list[float], list[dict]]:
    losses, steps = [], []
    for number in range(3):
        x = torch.randn(8, 32, generator=torch.Generator().manual_seed(10 * number + dist.get_rank()))
        loss = wrapped(x).square().mean()
        loss.backward()
        losses.append(loss.item())
        del loss
        optimizer.step()
        with torch.no_grad():  # else asking for a shard looks like the next forward pass
            steps.append({
                "parameter": truth.size(local(model.parameters())),
                "gradient": truth.size(local(p.grad for p in model.parameters())),
                "optimizer_state": truth.size(local(truth.tensors_in(list(optimizer.state.values())))),
                "batch": whole([x]),
                "whole": whole(model.parameters()),
                "layers": [whole(layer.parameters()) for layer in model if isinstance(layer, torch.nn.Linear)],
            })
        optimizer.zero_grad()
    return losses, steps


def main() -> None:
    mode, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    dist.init_process_group("gloo")
    plain, steps = train(*make(mode))
    model, wrapped, optimizer = make(mode)
    with torchtally.profile(wrapped, optimizer, recording=folder / "run.tally") as p:
        recorded, _ = train(model, wrapped, optimizer)
    result = {"plain": plain, "recorded": recorded, "steps": steps, "data": p.data(), "path": p.recording}
    (folder / f"result{dist.get_rank()}.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
