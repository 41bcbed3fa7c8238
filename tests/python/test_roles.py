# SPDX-License-Identifier: Apache-2.0
"""Who holds what in the ways that programs really train, against torch's own means."""

from __future__ import annotations

import functools
import threading

import pytest
import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import torchtally
import truth
from test_pytorch import Net, cross_entropy, ids, job, marks, record
from truth import Job

sgd = functools.partial(torch.optim.SGD, foreach=False)  # no temporaries: the peak is the edge's


def largest(data: dict) -> list[dict]:
    return data["peak_blocks"]


@pytest.mark.parametrize("cached", [True, False], ids=["cache", "no_cache"])
def test_autocast_cache_says_whose_copy_it_is(checked, cached):
    def make() -> Job:
        model = Net()

        def loss(number: int) -> torch.Tensor:
            tokens = ids(number).repeat(16, 1)  # the activations make the peak
            with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cached):
                return torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1).float(), tokens.flatten())

        return Job(model, sgd(model.parameters(), lr=0.01), loss)

    result = checked(make)
    result.check()
    copies = {block["name"]: block for block in largest(result.data)
              if block["name"].startswith("autocast copy of ")}
    weights = {f"autocast copy of {name}": p for name, p in Net().named_parameters()
               if p.dim() == 2 and "embedding" not in name}
    assert copies.keys() == (weights.keys() if cached else set())
    for name, block in copies.items():
        assert block["bytes"] == weights[name].numel() * 2
        assert block["role"] == "activation" and block["saved"] and block["dtype"] == "bfloat16"


# ---- selective activation checkpointing


def keep_products(context, op, *args, **kwargs):
    kept = op in (torch.ops.aten.addmm.default, torch.ops.aten.mm.default)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


class Checkpointed(Net):
    """Its blocks are checkpointed; `selective` keeps the products."""

    def __init__(self, selective: bool) -> None:
        super().__init__()
        for block in self.blocks:
            options = {}
            if selective:
                options["context_fn"] = functools.partial(
                    create_selective_checkpoint_contexts, keep_products)

            def forward(x, original=block.forward, options=options):
                return checkpoint(original, x, use_reentrant=False, **options)

            block.forward = forward


def test_what_a_selective_checkpoint_keeps_is_an_activation(checked):
    plain = checked(lambda: job(make=functools.partial(Checkpointed, False), optimizer=sgd))
    selective = checked(lambda: job(make=functools.partial(Checkpointed, True), optimizer=sgd))
    plain.check()
    selective.check()
    tokens = ids(0).numel()
    kept = 2 * tokens * (64 + 32) * 4  # the outputs of both products of both blocks
    for without, with_it in zip(marks(plain.data, "forward_edge"), marks(selective.data, "forward_edge")):
        assert with_it["roles"]["activation"] - without["roles"]["activation"] == kept
        assert with_it["saved_bytes"] == without["saved_bytes"]  # no graph shows them
        assert with_it["roles"]["held_output"] == without["roles"]["held_output"]
    # The first product of each block does not run again. Before the second the recomputation stops.
    for without, with_it in zip(plain.data["steps"], selective.data["steps"]):
        assert without["flops"]["recompute"] > 0
        assert with_it["flops"]["recompute"] == 0


# ---- threads


class Pair:
    """Two models, each with forward and backward passes in a thread of its own, updated together."""

    def __init__(self, steps: int = 3) -> None:
        torch.manual_seed(3)
        self.models = [Net(), Net()]
        self.optimizers = [torch.optim.AdamW(model.parameters()) for model in self.models]
        self.steps = steps
        self.losses: list[list[float]] = [[], []]

    def _work(self, which: int, number: int, meet: threading.Barrier) -> None:
        model = self.models[which]
        hidden = model.embedding(ids(number + which))
        hidden = hidden + model.blocks[0](hidden)
        if which == 0:  # its whole pass runs while the other is in the middle of its own
            meet.wait()
        temporary = torch.zeros(1000) + hidden.detach().sum()
        if which == 1:
            meet.wait()
            meet.wait()
        del temporary
        hidden = hidden + model.blocks[1](hidden)
        tokens = ids(number + which)
        loss = torch.nn.functional.cross_entropy(model.head(model.norm(hidden)).flatten(0, 1), tokens.flatten())
        loss.backward()
        self.losses[which].append(loss.item())
        if which == 0:
            meet.wait()

    def train(self) -> None:
        for number in range(self.steps):
            meet = threading.Barrier(2)
            threads = [threading.Thread(target=self._work, args=(which, number, meet)) for which in (0, 1)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()


def test_threads_that_train(tmp_path):
    plain = Pair()
    plain.train()
    recorded = Pair()
    data = record(tmp_path, lambda p: recorded.train(), recorded.models, recorded.optimizers)
    assert plain.losses == recorded.losses
    for one, other in zip(plain.models, recorded.models):
        assert all(map(torch.equal, one.parameters(), other.parameters()))
    assert len(data["steps"]) == 3
    for step in data["steps"]:
        first, second = (mark for mark in step["devices"]["cpu"]["marks"] if mark["name"] == "forward_edge")
        # What the other thread works with while a backward pass begins is not held by anybody.
        assert first["roles"]["temporary_forward"] >= 4000
        assert first["roles"]["held_output"] <= 4 and second["roles"]["held_output"] <= 8
        assert first["saved_bytes"] == second["saved_bytes"]


# ---- graphs that are used twice


def test_double_backward(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = []

    def train(p, measure: bool = False) -> None:
        for number in range(3):
            x = torch.ones(4, 8, requires_grad=True)
            with truth.SavedTensors(model.parameters()) if measure else torch.enable_grad() as saved:
                out = model(x).sum()
                if measure:
                    expected.append(saved.bytes())
                (slope,) = torch.autograd.grad(out, x, create_graph=True)
                penalty = (slope.norm() - 1).square()
                if measure:
                    expected.append(saved.bytes())
            penalty.backward()
            optimizer.step()
            optimizer.zero_grad()

    state = {name: value.clone() for name, value in model.state_dict().items()}
    train(None, measure=True)
    after = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    data = record(tmp_path, train, model, optimizer)
    assert all(torch.equal(value, after[name]) for name, value in model.state_dict().items())
    assert [mark["saved_bytes"] for mark in marks(data, "forward_edge")] == expected
    assert not any(mark["roles"]["recomputed_activation"] for mark in marks(data, "forward_edge"))


def test_retained_graph_is_kept_until_it_is_dropped(tmp_path):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = []

    def train(p) -> None:
        for number in range(3):
            loss = cross_entropy(model, number)
            loss.backward(retain_graph=True)
            optimizer.step()
            optimizer.zero_grad()
            del loss

    def measure() -> None:
        with truth.SavedTensors(model.parameters()) as saved:
            loss = cross_entropy(model, 0)
            loss.backward(retain_graph=True)
            expected.append(saved.bytes())
            model.zero_grad()

    measure()
    data = record(tmp_path, train, model, optimizer)
    ends, edges = marks(data, "end"), marks(data, "forward_edge")
    assert [edge["saved_bytes"] for edge in edges] == expected * 3
    # The graph outlives the step: its bytes are activations at the end, too.
    inputs = ids(0).nbytes
    assert all(end["roles"]["activation"] + end["roles"]["input"] >= expected[0] - inputs for end in ends)


# ---- saved-tensor hooks


def test_save_on_cpu_moves_bytes_and_says_so(tmp_path):
    model = Net()
    optimizer = sgd(model.parameters(), lr=0.1)
    packed: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: packed.append(tensor), lambda _: None):
        cross_entropy(model, 0)
    # What is on the CPU already stays where it is; the hooks' object holds it, not autograd.
    kept = truth.storages(packed)
    for pointer in truth.storages(model.parameters()):
        kept.pop(pointer, None)
    expected, count = sum(kept.values()) - ids(0).nbytes + 4, len(packed)  # no input, but the loss
    packed.clear()

    def train(p) -> None:
        for number in range(2):
            with torch.autograd.graph.save_on_cpu():
                loss = cross_entropy(model, number)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            del loss

    data = record(tmp_path, train, model, optimizer)
    for mark in marks(data, "forward_edge"):
        assert mark["saved_bytes"] == 0 and mark["roles"]["activation"] == 0
        assert mark["roles"]["held_output"] == expected
    notes = [note for note in data["unknown"]["notes"] if "save_on_cpu" in note]
    assert len(notes) == 1 and f" {2 * count} tensors" in notes[0]
    # A recording without such hooks says nothing, and neither does a checkpoint's.
    plain = job(make=functools.partial(Checkpointed, False))
    data = record(tmp_path, lambda p: (plain.loss(0).backward(), plain.optimizer.step()), plain.model)
    assert not any("save_on_cpu" in note for note in data["unknown"]["notes"])


# ---- other libraries


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_lora_of_peft(checked, dtype):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")

    def make() -> Job:
        config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=96, n_positions=32)
        base = transformers.GPT2LMHeadModel(config).to(dtype)
        adapters = peft.LoraConfig(r=4, target_modules=["c_attn", "c_proj"], lora_dropout=0.1,
                                   fan_in_fan_out=True, task_type="CAUSAL_LM")
        model = peft.get_peft_model(base, adapters).train()

        def loss(number: int) -> torch.Tensor:
            return model(input_ids=ids(number), labels=ids(number)).loss

        trained = [p for p in model.parameters() if p.requires_grad]
        return Job(model, torch.optim.AdamW(trained, lr=1e-3), loss)

    result = checked(make)
    result.check()
    base, adapters = result.steps[0].parameter, result.steps[0].gradient
    assert 0 < adapters < base / 4
    trainable = result.data["parameters"]["trainable"]
    assert adapters in (2 * trainable, 4 * trainable)


class Data(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, number: int):
        return torch.randint(64, (16,), generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_of_a_loader(tmp_path, workers):
    def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
        losses = []
        for tokens in torch.utils.data.DataLoader(Data(), batch_size=4, num_workers=workers):
            loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
            optimizer.zero_grad()
        return losses

    def make():
        torch.manual_seed(1)
        model = Net()
        return model, torch.optim.AdamW(model.parameters())

    expected = train(*make())
    model, optimizer = make()
    data = record(tmp_path, lambda p: expected.remove(None) if train(model, optimizer) != expected else None,
                  model, optimizer)
    assert len(data["steps"]) == 3
    batch = 4 * 16 * 8
    for step in data["steps"]:
        device = step["devices"]["cpu"]
        edge = next(mark for mark in device["marks"] if mark["name"] == "forward_edge")
        if workers:  # in shared memory, which no allocator of this process made
            assert edge["roles"]["input"] == 0 and device["foreign_bytes"] >= batch
        else:
            assert edge["roles"]["input"] == batch
