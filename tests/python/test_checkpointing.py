# SPDX-License-Identifier: Apache-2.0
"""Checkpointed regions against torch's own means: bytes kept and avoided by saved_tensors_hooks, to the
byte; FLOPs of the recomputation by torch.utils.flop_counter, with and without."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

import torchtally
from truth import SavedTensors, storages, tensors_in

torch.set_num_threads(2)

WORDS, TOKENS, BATCH, BLOCKS = 96, 16, 2, 3
aten = torch.ops.aten

# What a selective checkpoint keeps instead of making it again.
POLICIES = {
    "selective_products": {aten.addmm.default, aten.mm.default, aten.bmm.default},
    "selective_attention": {
        aten._scaled_dot_product_flash_attention_for_cpu.default, aten._softmax.default,
    },
}
WAYS = ["reentrant", "non_reentrant", "no_early_stop", *POLICIES]


# ---- models: the same with and without checkpoints


class Block(torch.nn.Module):
    def __init__(self, width: int, dropout: float, eager: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)
        self.drop, self.eager = torch.nn.Dropout(dropout), eager

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        if self.eager:
            scores = (q @ k.transpose(2, 3)) / q.shape[3] ** 0.5
            mixed = scores.softmax(3) @ v
        else:
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop(self.attend(self.ln_1(x)))
        return x + self.drop(self.down(torch.nn.functional.gelu(self.up(self.ln_2(x)))))


class Gpt(torch.nn.Module):
    def __init__(self, dropout: float = 0.0, eager: bool = False, width: int = 32) -> None:
        super().__init__()
        self.wte, self.wpe = torch.nn.Embedding(WORDS, width), torch.nn.Embedding(TOKENS, width)
        self.h = torch.nn.ModuleList(Block(width, dropout, eager) for _ in range(BLOCKS))
        self.ln_f, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, WORDS)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


@dataclasses.dataclass
class Trained:
    model: torch.nn.Module
    blocks: list[torch.nn.Module]
    loss: Callable[[], torch.Tensor]
    prefix: str = "h"


def ids() -> torch.Tensor:
    return torch.randint(WORDS, (BATCH, TOKENS), generator=torch.Generator().manual_seed(1))


def own_gpt(**options: Any) -> Trained:
    model = Gpt(**options)

    def loss() -> torch.Tensor:
        tokens = ids()
        return torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())

    return Trained(model, list(model.h), loss)


def hugging_face(kind: str) -> Trained:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_layer=BLOCKS, n_embd=32, n_head=2, vocab_size=WORDS, n_positions=TOKENS, use_cache=False,
        )
        model = transformers.GPT2LMHeadModel(config)
        blocks, prefix = list(model.transformer.h), "transformer.h"
    else:
        config = transformers.LlamaConfig(
            num_hidden_layers=BLOCKS, hidden_size=32, intermediate_size=64, num_attention_heads=4,
            num_key_value_heads=4, vocab_size=WORDS, max_position_embeddings=TOKENS, use_cache=False,
        )
        model = transformers.LlamaForCausalLM(config)
        blocks, prefix = list(model.model.layers), "model.layers"
    model.train()

    def loss() -> torch.Tensor:
        tokens = ids()
        return model(input_ids=tokens, labels=tokens).loss

    return Trained(model, blocks, loss, prefix)


MODELS: dict[str, Callable[[], Trained]] = {
    "gpt": own_gpt,
    "gpt_eager": functools.partial(own_gpt, eager=True),
    "gpt_dropout": functools.partial(own_gpt, dropout=0.1),
    "hf_gpt2": functools.partial(hugging_face, "gpt2"),
    "hf_llama": functools.partial(hugging_face, "llama"),
}


# ---- the truth


@contextlib.contextmanager
def wrapped_calls(blocks: list[torch.nn.Module], around: Callable[..., Any]) -> Iterator[None]:
    """Calls of the blocks go through `around(block, call, arguments)`, until the end of the with."""
    for block in blocks:
        block.forward = functools.partial(around, block, block.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def selected(way: str, function: Any) -> bool:
    return function in POLICIES.get(way, ())


class Outputs(torch.utils._python_dispatch.TorchDispatchMode):
    """The results of the operators that a policy would keep; alive, so that addresses are theirs."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.found = way, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if selected(self.way, function):
            self.found += [tensor.detach() for tensor in tensors_in(out)]
        return out


def saved_inside(trained: Trained, way: str) -> tuple[list[int], int]:
    """For each block, without checkpoints: what its forward pass saves beside parameters, its inputs and
    what the policy of a selective checkpoint keeps. A checkpoint of it avoids this. And the bytes of all
    named inputs that any of them saves, such as tables of positions: no checkpoint saves those."""
    parameters = storages(trained.model.parameters())
    avoided = []
    named: dict[int, int] = {}
    alive = []  # addresses are told apart only while everything lives

    def around(block, call, *args, **kwargs):
        inside: list[torch.Tensor] = []

        def pack(tensor):
            inside.append(tensor.detach())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), Outputs(way) as kept:
            out = call(*args, **kwargs)
        others = parameters | storages(tensors_in([*args, kwargs])) | storages(kept.found)
        own = storages(inside)
        avoided.append(sum(size for at, size in own.items() if at not in others))
        named.update((at, size) for at, size in storages(tensors_in(kwargs)).items() if at in own)
        alive.append((inside, kept))
        return out

    with wrapped_calls(trained.blocks, around):
        alive.append(trained.loss())
    return avoided, sum(named.values())


@contextlib.contextmanager
def checkpointed(trained: Trained, way: str, kept: list[int] | None = None) -> Iterator[None]:
    """Each block is a checkpoint until the end of the with. `kept`: gets for each block what its
    checkpoint keeps, parameters left out: what it gives to saved_tensors_hooks when it begins, and what a
    selective one stores."""
    stores: list[Any] = []
    parameters = storages(trained.model.parameters())

    def policy(context, function, *args, **kwargs):
        return CheckpointPolicy.MUST_SAVE if selected(way, function) else CheckpointPolicy.PREFER_RECOMPUTE

    def contexts():
        pair = create_selective_checkpoint_contexts(policy)
        stores.append(pair[0].storage)
        return pair

    options: dict[str, Any] = {"use_reentrant": way == "reentrant"}
    if way in POLICIES:
        options["context_fn"] = contexts
    if way == "no_early_stop":
        options["early_stop"] = False

    def around(block, call, *args, **kwargs):
        if kept is None:
            return checkpoint(functools.partial(call, **kwargs), *args, **options)
        stores.clear()
        with SavedTensors([]) as saved:
            out = checkpoint(functools.partial(call, **kwargs), *args, **options)
            at_begin = storages(p.tensor for p in (ref() for ref in saved._alive) if p is not None)
        cached = storages(
            value for store in stores for values in store.values()
            for value in tensors_in([v.val for row in values for v in (row if isinstance(row, (list, tuple)) else [row])])
        )
        kept.append(sum(size for at, size in (at_begin | cached).items() if at not in parameters))
        return out

    with wrapped_calls(trained.blocks, around):
        yield


def flops(trained: Trained) -> tuple[int, int]:
    """Of a step: with the CPU's attention, which torch's counter has no formula for; and without."""
    attention = aten._scaled_dot_product_flash_attention_for_cpu

    def formula(query, key, value, *args, out_shape=None, **kwargs):
        return sdpa_flop_count(query, key, value)

    with FlopCounterMode(display=False, custom_mapping={attention: formula}) as counter:
        trained.loss().backward()
    trained.model.zero_grad()
    total = counter.get_total_flops()
    return total, total - counter.get_flop_counts()["Global"].get(attention, 0)


def total_saved(trained: Trained) -> int:
    with SavedTensors(trained.model.parameters()) as saved:
        loss = trained.loss()
        size = saved.bytes()
    del loss
    return size


# ---- the tests


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_regions_are_exact(tmp_path, model, way):
    torch.manual_seed(3)
    trained = MODELS[model]()
    trained.loss().backward()  # whatever is made once is there
    trained.model.zero_grad()
    avoided, named = saved_inside(trained, way)
    plain_flops, plain_saved = flops(trained)[0], total_saved(trained)
    kept: list[int] = []
    with checkpointed(trained, way, kept):
        trained.loss()
    with checkpointed(trained, way):
        saved = total_saved(trained)
    optimizer = torch.optim.SGD(trained.model.parameters(), lr=0.01)
    with checkpointed(trained, way):
        all_flops, torch_flops = flops(trained)
        with torchtally.profile(trained.model, optimizer, recording=tmp_path / "run.tally") as p:
            for _ in range(2):
                optimizer.zero_grad()
                trained.loss().backward()
                optimizer.step()
    for step in p.data()["steps"]:
        regions = step["regions"][::-1]  # they ran again from the last to the first
        assert [r["module"] for r in regions] == [f"{trained.prefix}.{i}" for i in range(BLOCKS)]
        assert [r["avoided_bytes"] for r in regions] == avoided
        assert [r["kept_bytes"] for r in regions] == kept
        assert step["flops"]["recompute"] == sum(r["flops"] for r in regions) == all_flops - plain_flops
        assert step["flops"]["torch"] == torch_flops
        edge = next(m for m in step["devices"]["cpu"]["marks"] if m["name"] == "forward_edge")
        assert edge["saved_bytes"] == saved
        for mark in step["devices"]["cpu"]["marks"]:
            assert mark["difference"] == 0 and mark["roles"]["unattributed"] == 0
    if way not in POLICIES:
        # What autograd holds less, of the whole model.
        assert plain_saved - saved == sum(avoided) + named
