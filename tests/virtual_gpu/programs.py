# SPDX-License-Identifier: Apache-2.0
"""Training programs of well-known kinds on CUDA devices, for any profiler to watch.

A program is made by a function, from its first byte on the device; `step` is one update and returns
with the gradients still there. Values mean nothing: no kernel of the virtual card computes.
"""
from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

GIB = 1 << 30


@dataclasses.dataclass
class Program:
    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[], None]


def training(model: nn.Module, loss: Callable[[], torch.Tensor], *, micro_steps: int = 1,
             optimizer: torch.optim.Optimizer | None = None) -> Program:
    """The usual loop."""
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        for _ in range(micro_steps):
            loss().backward()
        optimizer.step()

    return Program(model, optimizer, step)


def tokens(batch: int, length: int, vocabulary: int) -> torch.Tensor:
    return torch.randint(vocabulary, (batch, length), device="cuda")


class Block(nn.Module):
    """A transformer's block: attention and a feed-forward part."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norms[0](x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.projection(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.feed_forward(self.norms[1](x))


class Gpt(nn.Module):
    def __init__(self, layers: int = 3, width: int = 256, heads: int = 4, vocabulary: int = 1000,
                 context: int = 128, checkpointed: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.checkpointed = checkpointed

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids) + self.position.weight[: ids.shape[1]]
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return self.head(x)


def gpt_loss(model: nn.Module, autocast: torch.dtype | None = None) -> torch.Tensor:
    ids = tokens(4, 128, 1000)
    with torch.autocast("cuda", autocast) if autocast else contextlib.nullcontext():
        logits = model(ids)
    return functional.cross_entropy(logits.float().flatten(0, 1), ids.flatten())


def gpt(autocast: torch.dtype | None = None, micro_steps: int = 1, **options) -> Program:
    with torch.device("cuda"):
        model = Gpt(**options)
    return training(model, lambda: gpt_loss(model, autocast), micro_steps=micro_steps)


def fp16_with_grad_scaler() -> Program:
    with torch.device("cuda"):
        model = Gpt()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler("cuda")

    def step() -> None:
        optimizer.zero_grad()
        scaler.scale(gpt_loss(model, torch.float16)).backward()
        scaler.step(optimizer)
        scaler.update()

    return Program(model, optimizer, step)


def hugging_face_gpt2() -> Program:
    import transformers

    config = transformers.GPT2Config(n_layer=3, n_embd=192, n_head=3, n_positions=128)
    with torch.device("cuda"):
        model = transformers.GPT2LMHeadModel(config).train()

    def loss() -> torch.Tensor:
        ids = tokens(2, 128, config.vocab_size)
        return model(input_ids=ids, labels=ids).loss

    return training(model, loss)


def llama_7b() -> Program:
    """Llama 2 7B as Hugging Face has it: fp32 weights, bf16 autocast, a sequence of 2048."""
    import transformers

    config = transformers.LlamaConfig()
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config).train()

    def loss() -> torch.Tensor:
        ids = tokens(1, 2048, config.vocab_size)
        with torch.autocast("cuda", torch.bfloat16):
            return model(input_ids=ids, labels=ids).loss

    return training(model, loss)


def resnet50() -> Program:
    import torchvision

    with torch.device("cuda"):
        model = torchvision.models.resnet50().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def loss() -> torch.Tensor:
        images = torch.randn(8, 3, 224, 224, device="cuda")
        labels = torch.zeros(8, dtype=torch.long, device="cuda")
        return functional.cross_entropy(model(images), labels)

    return training(model, loss, optimizer=optimizer)


def lstm() -> Program:
    with torch.device("cuda"):
        model = nn.LSTM(128, 256, num_layers=2, batch_first=True, bidirectional=True)
    return training(model, lambda: model(torch.randn(8, 64, 128, device="cuda"))[0].sum())


def compiled(backend: str) -> Program:
    torch._dynamo.reset()
    with torch.device("cuda"):
        model = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.LayerNorm(1024), nn.Linear(1024, 256))
    fast = torch.compile(model, backend=backend)
    return training(model, lambda: fast(torch.randn(64, 256, device="cuda")).sum())


def graphed() -> Program:
    """Forward pass, backward pass and update captured as one CUDA graph, then replayed."""
    with torch.device("cuda"):
        model = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, capturable=True)
    x = torch.randn(64, 256, device="cuda")
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()
    runs = 0

    def eager() -> None:
        model(x).sum().backward()
        optimizer.step()

    def step() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:  # beside the default stream, as a capture is
            optimizer.zero_grad()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                eager()
            torch.cuda.current_stream().wait_stream(stream)
        elif runs == 3:
            optimizer.zero_grad()  # what is freed inside a capture stays pending
            with torch.cuda.graph(graph, stream=stream):
                eager()
        else:
            graph.replay()

    return Program(model, optimizer, step)


def two_devices() -> Program:
    """A pipeline: the second half of the model lies on the second card."""
    first = nn.Sequential(nn.Linear(256, 1024), nn.GELU()).to("cuda:0")
    second = nn.Linear(1024, 256).to("cuda:1")
    model = nn.ModuleList([first, second])
    return training(model, lambda: second(first(torch.randn(64, 256, device="cuda:0")).to("cuda:1")).sum())


@contextlib.contextmanager
def rank_0_of(world_size: int) -> Iterator[None]:
    """A process group whose collectives do nothing: this process is its rank 0."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def fully_sharded() -> Program:
    """FSDP2: each block's parameters are gathered when it runs. Inside rank_0_of()."""
    from torch.distributed.fsdp import fully_shard

    with torch.device("cuda"):
        model = Gpt(layers=4)
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    return training(model, lambda: gpt_loss(model))
