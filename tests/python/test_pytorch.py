# SPDX-License-Identifier: Apache-2.0
"""What really happens in PyTorch programs, each against torch's own means."""

from __future__ import annotations

import functools

import pytest
import torch

import torchtally
import truth
from truth import Job


class Net(torch.nn.Module):
    """An embedding, two blocks, and a head that may share the embedding's weight."""

    def __init__(self, tied: bool = False, sparse: bool = False) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(64, 32, sparse=sparse)
        self.blocks = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 32))
            for _ in range(2)
        )
        self.norm = torch.nn.LayerNorm(32)
        self.head = torch.nn.Linear(32, 64, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(ids)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.head(self.norm(hidden))


def ids(number: int) -> torch.Tensor:
    return torch.randint(64, (4, 16), generator=torch.Generator().manual_seed(number))


def cross_entropy(model: torch.nn.Module, number: int) -> torch.Tensor:
    tokens = ids(number)
    return torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1).float(), tokens.flatten())


def job(make=Net, optimizer=torch.optim.AdamW, around=None, **options) -> Job:
    model = make()

    def loss(number: int) -> torch.Tensor:
        if around is None:
            return cross_entropy(model, number)
        with around():
            return cross_entropy(model, number)

    return Job(model, optimizer(model.parameters(), lr=0.01), loss, **options)


def record(tmp_path, train, *arguments, **options) -> dict:
    with torchtally.profile(*arguments, recording=tmp_path / "run.tally", **options) as p:
        train(p)
    data = p.data()
    for step in data["steps"]:
        for mark in step["devices"]["cpu"]["marks"]:
            assert mark["difference"] == 0
            assert mark["roles"]["unattributed"] == 0, f"{step['index']} {mark['name']} {mark['roles']}"
    return data


def marks(data: dict, name: str) -> list[dict]:
    return [mark for step in data["steps"] for mark in step["devices"]["cpu"]["marks"]
            if mark["name"] == name]


def test_tied_weights_count_once(checked):
    checked(lambda: job(functools.partial(Net, tied=True))).check()


def test_autocast(checked):
    around = functools.partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    checked(lambda: job(around=around)).check()


def test_sparse_gradients(checked):
    def make() -> Job:
        model = Net(sparse=True)
        dense = [p for name, p in model.named_parameters() if "embedding" not in name]
        optimizer = torch.optim.SGD(dense + [model.embedding.weight], lr=0.1)
        return Job(model, optimizer, functools.partial(cross_entropy, model))

    checked(make).check()


def test_sparse_adam(checked):
    def make() -> Job:
        model = torch.nn.EmbeddingBag(64, 8, sparse=True)
        optimizer = torch.optim.SparseAdam(model.parameters())
        return Job(model, optimizer, lambda number: model(ids(number)).square().mean())

    checked(make).check()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop", "Adagrad", "Adadelta", "Adamax",
                                       "NAdam", "RAdam", "Rprop", "ASGD"])
def test_every_optimizer(checked, optimizer):
    checked(lambda: job(optimizer=getattr(torch.optim, optimizer), steps=4)).check()


def test_lbfgs(tmp_path):
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model(torch.ones(4, 8)) - 1).square().sum()
        loss.backward()
        return loss

    data = record(tmp_path, lambda p: [optimizer.step(closure) for _ in range(3)], model, optimizer)
    assert len(data["steps"]) == 3
    assert marks(data, "end")[-1]["roles"]["optimizer_state"] == truth.size(
        truth.tensors_in(list(optimizer.state.values())))


def test_save_on_cpu(tmp_path):
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters())

    def train(p) -> None:
        for number in range(3):
            optimizer.zero_grad()
            with torch.autograd.graph.save_on_cpu():
                loss = cross_entropy(model, number)
            loss.backward()
            optimizer.step()

    data = record(tmp_path, train, model, optimizer)
    # What the hooks packed is copied; autograd keeps nothing itself.
    assert all(mark["roles"]["held_output"] > 0 for mark in marks(data, "forward_edge"))


def test_retain_graph_and_two_losses(tmp_path):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train(p) -> None:
        for number in range(3):
            optimizer.zero_grad()
            loss = cross_entropy(model, number)
            loss.backward(retain_graph=True)
            loss.backward()
            optimizer.step()

    data = record(tmp_path, train, model, optimizer)
    edges = [mark["saved_bytes"] for mark in marks(data, "forward_edge")]
    assert len(edges) == 6 and len(set(edges)) == 1


def test_gan(tmp_path):
    generator, critic = torch.nn.Linear(8, 16), torch.nn.Linear(16, 1)
    optimizers = [torch.optim.Adam(m.parameters()) for m in (critic, generator)]

    def train(p) -> None:
        for _ in range(3):
            optimizers[0].zero_grad()
            fake = generator(torch.randn(4, 8))
            (critic(fake.detach()).mean() - critic(torch.randn(4, 16)).mean()).backward()
            optimizers[0].step()
            optimizers[1].zero_grad()
            (-critic(fake).mean()).backward()
            optimizers[1].step()

    data = record(tmp_path, train, [generator, critic], optimizers)
    assert len(data["steps"]) == 3
    names = {module["name"] for module in data["modules"]}
    assert {"Linear_0", "Linear_1"} <= names


def test_gradient_scaler_skips_a_step(tmp_path):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)

    def train(p) -> None:
        for number in range(4):
            optimizer.zero_grad()
            loss = cross_entropy(model, number)
            scaler.scale(loss * (float("inf") if number == 1 else 1)).backward()
            scaler.step(optimizer)
            scaler.update()

    assert len(record(tmp_path, train, model, optimizer)["steps"]) == 3


@pytest.mark.parametrize("to_none", [True, False], ids=["none", "zero"])
def test_zero_grad(tmp_path, to_none):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train(p) -> None:
        for number in range(3):
            optimizer.zero_grad(set_to_none=to_none)
            cross_entropy(model, number).backward()
            optimizer.step()

    data = record(tmp_path, train, model, optimizer)
    size = sum(p.nbytes for p in model.parameters())
    expected = 0 if to_none else size
    assert [m["roles"]["gradient"] for m in marks(data, "forward_edge")] == [0, expected, expected]


class Rotated(torch.Tensor):
    """A tensor subclass that multiplies element by element as it likes: by a matrix product."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Rotated:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        inner = [a.inner if isinstance(a, Rotated) else a for a in arguments]
        if function is torch.ops.aten.mul.Tensor:
            return cls(inner[0] @ inner[1])
        return function(*inner, **(keywords or {}))


def test_products_inside_an_operator_of_a_subclass_count(tmp_path):
    left, right = Rotated(torch.randn(8, 16)), torch.randn(16, 16)

    def train(p) -> None:
        for _ in range(2):
            with torch.no_grad():
                left * right
            p.step()

    assert [step["flops"]["forward"] for step in record(tmp_path, train)["steps"]] == [2 * 8 * 16 * 16] * 2
