# SPDX-License-Identifier: Apache-2.0
"""Verdicts on programs that earn them, and on programs that must not get them."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import torchtally
from small_net import BATCH, BLOCKS, WIDTH, Block, Net, each, evidence, once, reentrant, squares, trained

torch.set_num_threads(2)
pytestmark = pytest.mark.usefixtures("nothing_of_earlier_tests")


# ---- checkpointing


def test_checkpointing_pays(tmp_path):
    p = trained(tmp_path, Net(each), once)
    torchtally.assert_verdicts(p, checkpointing="pays: ", accumulation=None)


def test_checkpointing_is_offered_and_no_more(tmp_path):
    p = trained(tmp_path, Net(), once)
    torchtally.assert_verdicts(p, checkpointing="not used: checkpointing h.0 to h.3 would bring the peak from")


def test_checkpointing_pays_and_the_logits_are_the_peak(tmp_path):
    p = trained(tmp_path, Net(each, classes=8 * WIDTH), once)
    assert "; it is now the logits and the loss, after the last block" in p.verdicts()["checkpointing"]


def test_checkpointing_pays_and_one_recomputation_is_the_peak(tmp_path):
    class Wide(Block):
        def forward(self, x):
            for _ in range(6):
                x = torch.tanh(x)
            return super().forward(x)

    model = Net(each, classes=1)
    model.h = torch.nn.ModuleList(Wide() for _ in range(BLOCKS))
    assert "; it is now one region's recomputation (h." in trained(tmp_path, model, once).verdicts()["checkpointing"]


def test_checkpointing_does_nothing_for_a_peak_in_the_update(tmp_path):
    step = functools.partial(once, width=256, batch=1)
    p = trained(tmp_path, Net(each, width=256), step, make=torch.optim.AdamW, foreach=True)
    torchtally.assert_verdicts(p, checkpointing="does nothing for the peak: it is the optimizer step")


def test_checkpoints_around_less_than_their_inputs(tmp_path):
    class Narrow(torch.nn.Module):
        """Reads 256 channels and saves 4 of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = torch.nn.Linear(256, 4), torch.nn.Linear(4, 256)

        def forward(self, x):
            return self.up(torch.tanh(self.down(x)))

    model = Net(each, width=256)
    model.h = torch.nn.ModuleList(Narrow() for _ in range(BLOCKS))
    p = trained(tmp_path, model, functools.partial(once, width=256))
    torchtally.assert_verdicts(p, checkpointing="keeps more than it avoids: ")


class Nested(Block):
    """A checkpoint of its own; counts how often its forward pass runs."""

    def __init__(self, inner: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def run(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.run, x)


class Segment(torch.nn.Module):
    """Its blocks are checkpoints."""

    def __init__(self, inner: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(Nested(inner) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def torch_flops(model: torch.nn.Module) -> int:
    with FlopCounterMode(display=False) as counter:
        squares(model(torch.ones(BATCH, WIDTH))).backward()
    return counter.get_total_flops()


every_time = functools.partial(checkpoint, use_reentrant=False, early_stop=False)


@pytest.mark.parametrize(("outer", "inner", "runs"), [
    (reentrant, reentrant, 3), (reentrant, each, 3), (each, reentrant, 3), (every_time, every_time, 3),
    # The outer one stops as soon as the inner one has its input: once more is all.
    (each, each, 2),
], ids=["both_reentrant", "reentrant_around", "reentrant_inside", "no_early_stop", "both_non_reentrant"])
def test_a_checkpoint_inside_a_checkpoint(tmp_path, outer, inner, runs):
    model, plain = Net(outer), Net()
    model.h = torch.nn.ModuleList(Nested(inner) for _ in range(BLOCKS))
    model(torch.ones(BATCH, WIDTH))  # whatever is made once is there
    extra = torch_flops(model) - torch_flops(plain)
    calls = sum(block.calls for block in model.h)
    squares(model(torch.ones(BATCH, WIDTH))).backward()
    assert sum(block.calls for block in model.h) - calls == runs * BLOCKS  # torch's own truth
    model.zero_grad()
    p = trained(tmp_path, model, once)
    torchtally.assert_verdicts(p, checkpointing="pays: " if runs == 2 else "recomputes twice: the forward pass of h.0, ")
    assert p.data()["steps"][-1]["flops"]["recompute"] == extra


def test_checkpoints_inside_a_checkpointed_segment(tmp_path):
    """All but the last block of the segment run twice again: for the segment, and for themselves."""
    model, plain = Net(each), Net()
    model.h = torch.nn.ModuleList(Segment(each) for _ in range(2))
    plain.h = torch.nn.ModuleList(Segment(lambda run, x: run(x)) for _ in range(2))
    torch_flops(model)
    runs = [[block.calls for block in segment.blocks] for segment in model.h]
    assert runs == [[3, 2], [3, 2]]  # torch's own truth
    extra = torch_flops(model) - torch_flops(plain)
    model.zero_grad()
    p = trained(tmp_path, model, once)
    assert p.data()["steps"][-1]["flops"]["recompute"] == extra
    torchtally.assert_verdicts(p, checkpointing="recomputes twice: ")


def test_a_reentrant_checkpoint_without_an_input_that_needs_gradients(tmp_path):
    """torch warns, and the blocks are not trained; a non-reentrant one trains them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Net(reentrant, has_input=False)
        p = trained(tmp_path, model, once)
    assert all(parameter.grad is None for parameter in model.h.parameters())
    torchtally.assert_verdicts(p, checkpointing="never ran in backward: h.0, h.1, h.2, h.3 ran forward and has "
                               "parameters to train, but no backward pass reached it: they get no gradients")
    model = Net(each, has_input=False)
    p = trained(tmp_path, model, once)
    assert all(parameter.grad is not None for parameter in model.h.parameters())
    torchtally.assert_verdicts(p, checkpointing="pays: ")


def test_a_model_that_is_one_reentrant_checkpoint_never_ran_in_backward(tmp_path):
    """Nothing needs gradients then, and the loop that looks first goes on with its update."""
    model = Net(has_input=False)

    def step(_: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        loss = squares(reentrant(model, torch.ones(BATCH, WIDTH)))
        if loss.requires_grad:
            loss.backward()
        optimizer.step()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p = trained(tmp_path, model, step)
    assert all(parameter.grad is None for parameter in model.parameters())
    torchtally.assert_verdicts(p, checkpointing="never ran in backward: h.0, h.1, h.2, h.3 and 1 more ran forward")


# ---- out of memory


@pytest.mark.parametrize("another_step", [False, True])
def test_a_failure_behind_the_last_update_hides_no_step(tmp_path, monkeypatch, another_step):
    """More is alive when the evaluation fails than at any moment of a step; the step is shown all the same."""
    monkeypatch.setenv("TORCHTALLY_BUDGET", "8MiB")
    monkeypatch.setenv("TORCHTALLY_BUDGET_ACTION", "stop")
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with torchtally.profile(model, optimizer, recording=tmp_path / "run.tally") as p:
        for _ in range(3):
            once(model, optimizer)
        results = [torch.ones(1 << 20)]  # 4 MiB
        with pytest.raises(torch.OutOfMemoryError), torch.no_grad():
            results += [model(torch.ones(16 * BATCH, WIDTH)) for _ in range(8)]
        if another_step:
            results.clear()
            once(model, optimizer)
    data = p.data()
    assert data["run"]["ended"] == "clean"
    assert [step["ended"] for step in data["steps"]] == [True, True, True, another_step]
    failed = data["steps"][3]["devices"]["cpu"]
    highest = max(step["devices"]["cpu"]["peak"]["bytes"] for step in data["steps"][:3])
    assert failed["peak"]["bytes"] > 2 * highest
    oom = next(mark for mark in failed["marks"] if mark["name"] == "oom")
    assert oom["difference"] == 0 and oom["bytes"] > 2 * highest
    asked = subprocess.run(
        [sys.executable, "-m", "torchtally", "report", str(tmp_path / "run.tally"), "--at", "oom", "--format", "json"],
        capture_output=True, text=True, check=True,
    )
    assert json.loads(asked.stdout)["shown"] == 3
    text = p.summary()
    if another_step:  # the failure is a part of it
        assert data["shown"] == 3 and "4 steps, " in text
    else:
        assert data["shown"] < 3 and "3 steps, 3 in detail" in text
        assert "An allocation failed behind step 2, and no step came to its end after it" in str(data["unknown"]["notes"])
        assert "the run ended before the step did" in evidence(p, "oom")
        torchtally.assert_verdicts(p, oom="an allocation of ", checkpointing="not used: checkpointing h.0 to h.3 would ")


# ---- no false alarm on what people train


def gpt(wrap: Callable[..., torch.Tensor] | None = None) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    import test_checkpointing

    model = test_checkpointing.Gpt(width=64)
    for block in model.h if wrap else ():
        block.forward = functools.partial(wrap, block.forward)
    ids = torch.randint(test_checkpointing.WORDS, (32, test_checkpointing.TOKENS))
    return model, lambda: torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())


def resnet50(_: None) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    model = torchvision.models.resnet50(num_classes=10)
    images, labels = torch.randn(16, 3, 64, 64), torch.arange(16) % 10
    return model, lambda: torch.nn.functional.cross_entropy(model(images), labels)


@pytest.mark.parametrize(("make", "wrap"), [(gpt, None), (gpt, each), (resnet50, None)],
                         ids=["gpt", "gpt_checkpointed", "resnet50"])
@pytest.mark.parametrize("micro_steps", [1, 3])
def test_no_false_alarm(tmp_path, make, micro_steps, wrap):
    model, loss = make(wrap)

    def step(_, optimizer):
        optimizer.zero_grad()
        for _ in range(micro_steps):
            loss().backward()
        optimizer.step()

    p = trained(tmp_path, model, step, steps=4 if make is gpt else 2)
    torchtally.assert_verdicts(p, accumulation="works: " if micro_steps > 1 else None)


# ---- leak


def on_the_next(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: Iterator[torch.Tensor]
) -> None:
    squares(model(next(batches))).backward()
    optimizer.step()
    optimizer.zero_grad()


def test_batches_that_were_in_memory_before_are_no_leak(tmp_path):
    batches = [torch.randn(BATCH, WIDTH) for _ in range(6)]
    step = functools.partial(on_the_next, batches=iter(batches))
    verdict = trained(tmp_path, Net(), step, steps=len(batches)).verdicts()["leak"]
    assert verdict.startswith("no growth")


def test_batches_that_are_made_and_kept_are_a_leak(tmp_path):
    kept: list[torch.Tensor] = []

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        kept.append(torch.randn(BATCH, WIDTH))
        on_the_next(model, optimizer, batches=iter(kept[-1:]))

    verdict = trained(tmp_path, Net(), step, steps=6).verdicts()["leak"]
    assert verdict.startswith("suspected: ") and "by 64.0 KiB a step" in verdict
