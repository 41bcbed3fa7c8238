# SPDX-License-Identifier: Apache-2.0
"""A GPT that trains on the card, and the same with each remedy that the out-of-memory verdict names."""
from __future__ import annotations

import contextlib
import dataclasses

import torch
from programs import Gpt, Program
from torch import nn
from torch.nn import functional

MIB = 1 << 20


class EightBitAdamW(torch.optim.Optimizer):
    """AdamW whose two moments are bytes, with one float32 scale for each 256 of them; it works on a piece
    of a parameter at a time, as a kernel does it in place."""

    GROUP, PIECE = 256, 256

    def __init__(self, parameters, lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "decay": 0.01})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                groups = -(-parameter.numel() // self.GROUP)
                for name in () if state else ("mean", "square"):
                    state[name] = torch.zeros(groups, self.GROUP, dtype=torch.uint8, device=parameter.device)
                    state[name + "_scale"] = torch.zeros(groups, 1, device=parameter.device)
                for first in range(0, groups, self.PIECE):
                    self.update(parameter, group, state, slice(first, min(first + self.PIECE, groups)))

    def update(self, parameter: torch.Tensor, group: dict, state: dict, rows: slice) -> None:
        piece = slice(rows.start * self.GROUP, rows.stop * self.GROUP)
        gradient, values = parameter.grad.view(-1)[piece], parameter.view(-1)[piece]
        moments = []
        for name, beta, value, zero in (("mean", group["betas"][0], gradient, 128),
                                        ("square", group["betas"][1], gradient.square(), 0)):
            scale = state[name + "_scale"][rows]
            moment = (state[name][rows].float() - zero) * scale
            moments.append(moment.view(-1)[: values.numel()].lerp_(value, 1 - beta))
            scale.copy_(moment.abs().amax(1, keepdim=True) / (255 - zero))
            state[name][rows] = (moment / scale.clamp_min(1e-12)).round_() + zero
        values.mul_(1 - group["lr"] * group["decay"])
        values.addcdiv_(moments[0], moments[1].sqrt_().add_(group["eps"]), value=-group["lr"])


class ShardedAdamW(torch.optim.Optimizer):
    """ZeRO-1: the update of one of n ranks, of its 1/n of each parameter. What the others would send back
    is left out: the card computes nothing."""

    def __init__(self, parameters, lr: float, ranks: int) -> None:
        parameters = list(parameters)
        super().__init__(parameters, {"lr": lr})
        self.shards = [nn.Parameter(p.detach().view(-1)[: -(-p.numel() // ranks)]) for p in parameters]
        self.inner = torch.optim.AdamW(self.shards, lr=lr)
        self.state = self.inner.state

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for parameter, shard in zip(self.param_groups[0]["params"], self.shards):
            if parameter.grad is not None:
                shard.grad = parameter.grad.view(-1)[: shard.numel()]
        self.inner.step()
        for shard in self.shards:
            shard.grad = None


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a remedy changes is one field."""

    layers: int = 6
    width: int = 256
    vocabulary: int = 1000
    batch: int = 8
    context: int = 128
    micro_steps: int = 1
    parts: int = 1  # each micro-batch is cut into so many
    checkpointed: bool = False
    keeps_logits: bool = False
    set_to_none: bool = True
    dtype: torch.dtype = torch.float32
    optimizer: str = "foreach"
    ranks: int = 1
    offload: bool = False

    def make(self) -> Program:
        with torch.device("cuda"):
            model = Gpt(self.layers, self.width, 4, self.vocabulary, self.context, self.checkpointed).to(self.dtype)
        if self.optimizer == "FSDP":
            from torch.distributed.fsdp import fully_shard

            for block in model.blocks:
                fully_shard(block)
            fully_shard(model)
        optimizer = self.make_optimizer(model)
        kept: list[torch.Tensor] = []
        saving = torch.autograd.graph.save_on_cpu if self.offload else contextlib.nullcontext

        def loss(batch: int) -> torch.Tensor:
            ids = torch.randint(self.vocabulary, (batch, self.context), device="cuda")
            with saving():
                logits = model(ids)
                if self.keeps_logits:
                    kept.append(logits)
                return functional.cross_entropy(logits.flatten(0, 1), ids.flatten())

        def step() -> None:
            optimizer.zero_grad(set_to_none=self.set_to_none)
            for _ in range(self.micro_steps * self.parts):
                loss(self.batch // self.parts).backward()
            optimizer.step()
            kept.clear()

        return Program(model, optimizer, step)

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        if self.optimizer == "8-bit":
            return EightBitAdamW(model.parameters(), lr=1e-4)
        if self.optimizer == "ZeRO-1":
            return ShardedAdamW(model.parameters(), lr=1e-4, ranks=self.ranks)
        ways = {"fused": {"fused": True}, "one by one": {"foreach": False}}
        return torch.optim.AdamW(model.parameters(), lr=1e-4, **ways.get(self.optimizer, {}))

    def but(self, **changes) -> Setting:
        return dataclasses.replace(self, **changes)
