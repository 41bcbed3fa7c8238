# SPDX-License-Identifier: Apache-2.0
"""Verdicts on gradient accumulation: programs that earn them, and programs that must not get them."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

import torchtally
from small_net import BATCH, WIDTH, Net, each, evidence, once, squares, trained

torch.set_num_threads(2)
pytestmark = pytest.mark.usefixtures("nothing_of_earlier_tests")


def accumulate(model: torch.nn.Module, optimizer: torch.optim.Optimizer, micro_steps: int = 3,
               after: Callable[..., None] | None = None, set_to_none: bool = True,
               batches: tuple[int, ...] = (BATCH,), **backward: Any) -> None:
    optimizer.zero_grad(set_to_none=set_to_none)
    for number in range(micro_steps):
        out = model(torch.ones(batches[number % len(batches)], WIDTH))
        loss = squares(out)
        loss.backward(**backward)
        if after:
            after(model, out, loss)
        del out, loss
    optimizer.step()


def test_accumulation_works(tmp_path):
    p = trained(tmp_path, Net(), accumulate)
    torchtally.assert_verdicts(p, accumulation="works: 3 micro-steps need the memory of one")
    assert "zero_grad" not in evidence(p, "accumulation")


def test_accumulation_with_checkpoints_works(tmp_path):
    p = trained(tmp_path, Net(each), accumulate)
    torchtally.assert_verdicts(p, accumulation="works: ", checkpointing="pays: ")


def test_accumulation_with_stored_losses_works(tmp_path):
    losses: list[float] = []
    p = trained(tmp_path, Net(), functools.partial(accumulate, after=lambda m, out, loss: losses.append(loss.item())))
    torchtally.assert_verdicts(p, accumulation="works: ")


def test_accumulation_that_stores_outputs(tmp_path):
    def step(model, optimizer):
        kept: list[torch.Tensor] = []
        accumulate(model, optimizer, after=lambda m, out, loss: kept.append(out))

    p = trained(tmp_path, Net(), step)
    torchtally.assert_verdicts(p, accumulation=f"carries over {BATCH * WIDTH * 4 // 1024}.0 KiB from micro-step")
    assert "or stored outputs that the next operator saved" in evidence(p, "accumulation")


def test_accumulation_that_stores_the_loss_with_its_graph(tmp_path):
    def step(model, optimizer):
        kept: list[torch.Tensor] = []
        accumulate(model, optimizer, after=lambda m, out, loss: kept.append(loss), retain_graph=True)

    p = trained(tmp_path, Net(), step)
    torchtally.assert_verdicts(p, accumulation="carries over ")
    assert "a graph that is kept (a loss that is stored with it" in evidence(p, "accumulation")
    assert "activations of h.0" in evidence(p, "accumulation")


def test_gradients_that_wait_for_nothing(tmp_path):
    p = trained(tmp_path, Net(), functools.partial(accumulate, set_to_none=False))
    torchtally.assert_verdicts(p, accumulation="works: ")
    assert "alive through the first forward pass: zero_grad(set_to_none) would give them back" in evidence(p, "accumulation")


def test_a_larger_micro_batch_is_told_as_one(tmp_path):
    p = trained(tmp_path, Net(), functools.partial(accumulate, batches=(BATCH, 3 * BATCH)))
    torchtally.assert_verdicts(p, accumulation="grows: micro-step 1 peaks at")
    assert "its micro-batch is larger: autograd holds" in evidence(p, "accumulation")


def test_an_update_in_each_micro_step_holds_state_early(tmp_path):
    model = Net(width=256)
    optimizer = torch.optim.AdamW(model.parameters())
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)  # its step ends a step
    with torchtally.profile(model, other, recording=tmp_path / "run.tally") as p:
        for _ in range(3):
            once(model, optimizer, width=256, batch=8)
        other.step()
    torchtally.assert_verdicts(p, accumulation="holds optimizer state early: ", checkpointing="not used")


def test_a_gradient_scaler_is_no_alarm(tmp_path):
    scaler = torch.amp.GradScaler("cpu")

    def step(model, optimizer):
        optimizer.zero_grad()
        for _ in range(3):
            scaler.scale(squares(model(torch.ones(BATCH, WIDTH)))).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    torchtally.assert_verdicts(trained(tmp_path, Net(), step), accumulation="works: ")


@pytest.fixture
def process_group(tmp_path):
    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def ddp(folder: Any, view: bool, no_sync: bool = True, set_to_none: bool = True) -> Any:
    """Two micro-steps under DistributedDataParallel, the first without communication."""
    inner = Net(width=256)
    model = torch.nn.parallel.DistributedDataParallel(inner, gradient_as_bucket_view=view)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with torchtally.profile(inner, optimizer, recording=folder / "run.tally") as p:
        for _ in range(3):
            optimizer.zero_grad(set_to_none=set_to_none)
            with model.no_sync() if no_sync else contextlib.nullcontext():
                squares(model(torch.ones(8, 256))).backward()
            squares(model(torch.ones(8, 256))).backward()
            optimizer.step()
    return p


def most_gradients(p: Any) -> int:
    """Between the passes of the last step, buckets and all."""
    return max(mark["roles"]["gradient"] + mark["roles"]["communication"]
               for mark in p.data()["steps"][-1]["devices"]["cpu"]["marks"] if mark["name"] != "peak")


def test_ddp_holds_gradients_twice(tmp_path, process_group):
    p = ddp(tmp_path, view=False)
    torchtally.assert_verdicts(p, accumulation="holds gradients twice: ")
    remedy = next(v for v in p.data()["verdicts"] if v["kind"] == "accumulation")["remedies"][0]
    assert "gradient_as_bucket_view=True" in remedy["text"]
    whole = sum(parameter.nbytes for parameter in Net(width=256).parameters())
    assert remedy["bytes"] == whole and most_gradients(p) == 2 * whole


@pytest.mark.parametrize(("no_sync", "set_to_none"), [(False, True), (False, False), (True, False)])
def test_ddp_whose_gradients_are_views_holds_them_once(tmp_path, process_group, no_sync, set_to_none):
    p = ddp(tmp_path, view=True, no_sync=no_sync, set_to_none=set_to_none)
    torchtally.assert_verdicts(p, accumulation="works: 2 micro-steps need the memory of one")
    assert "zero_grad" not in evidence(p, "accumulation")  # the buckets stay
    assert most_gradients(p) == sum(parameter.nbytes for parameter in Net(width=256).parameters())


def test_ddp_that_lets_go_of_its_views_holds_gradients_twice(tmp_path, process_group):
    """torch makes new gradients beside the buckets in no_sync() and copies them into the buckets later."""
    p = ddp(tmp_path, view=True)
    whole = sum(parameter.nbytes for parameter in Net(width=256).parameters())
    assert most_gradients(p) == 2 * whole
    torchtally.assert_verdicts(p, accumulation="holds gradients twice: 4.6 MiB in .grad and the buckets of DDP for 2.3")
    remedy = next(v for v in p.data()["verdicts"] if v["kind"] == "accumulation")["remedies"][0]
    assert remedy["text"].startswith("zero_grad(set_to_none=False)") and remedy["bytes"] == whole
