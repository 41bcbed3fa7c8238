# SPDX-License-Identifier: Apache-2.0
"""What a training step costs under the profiler in Python, and under other tools beside it.

    PYTHONPATH=build/python python tests/benchmarks/python_overhead.py gpt2 --rounds 21
    PYTHONPATH=build/python python tests/benchmarks/python_overhead.py narrow --rounds 21
    PYTHONPATH=build/python python tests/benchmarks/python_overhead.py tiny --rounds 15 --others

Each round runs the same steps without and with each tool, in one process, in an order that turns from
round to round; a ratio is of one round. Printed: the median of the ratios, the lowest and highest, of
the time that passed and of the processor time of all threads, which a busy machine disturbs less,
the milliseconds that the tool added to a step, and the ratio of the fastest rounds, which it disturbs
least. The profiler is measured without source lines and, where a workload makes blocks that are large
enough for them, with.
Exit code 1: one of the profiler's medians of the time that passed is above its bar.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

import torchtally

Step = Callable[[], None]
Around = Callable[[], "contextlib.AbstractContextManager[object]"]


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, s, h = x.shape
        q, k, v = (part.view(b, s, self.heads, -1).transpose(1, 2) for part in self.c_attn(self.ln_1(x)).split(h, 2))
        attention = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(attention.transpose(1, 2).reshape(b, s, h))
        return x + self.mlp(self.ln_2(x))


class Gpt(nn.Module):
    def __init__(self, vocabulary: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids)
        for block in self.h:
            x = block(x)
        return nn.functional.linear(self.ln_f(x), self.wte.weight)


def gpt2(narrower: int = 1) -> tuple[nn.Module, torch.optim.Optimizer, Step]:
    """GPT-2 small's shape with a short sequence, so that a round takes seconds."""
    vocabulary = 50257 // narrower
    model = Gpt(vocabulary, 768 // narrower, 12, 12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        ids = torch.randint(vocabulary, (1, 64))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
        optimizer.step()

    return model, optimizer, step


def tiny() -> tuple[nn.Module, torch.optim.Optimizer, Step]:
    """Nearly nothing but calls: 300 layers of 16 x 16."""
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(300)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.randn(8, 16)).sum().backward()
        optimizer.step()

    return model, optimizer, step


# Before each measurement under a tool: the profiler's detail and theory are for its first steps.
UNMEASURED = 3
PLAIN, LINES = "torchtally", "torchtally, source lines"


@dataclasses.dataclass(frozen=True)
class Workload:
    make: Callable[[], tuple[nn.Module, torch.optim.Optimizer, Step]]
    steps: int  # of a measurement
    bars: dict[str, float | None]  # the most that the median ratio may be under each way to use the profiler
    lines: str = "1 MiB"  # blocks of this size have source lines


WORKLOADS = {
    "gpt2": Workload(gpt2, 2, {PLAIN: 1.02, LINES: 1.05}),
    # The same calls on a 16th of the width. What the profiler does for a call does not depend on its
    # sizes, so the milliseconds that it adds here are those of gpt2, without the noise of its kernels.
    "narrow": Workload(lambda: gpt2(16), 60, {PLAIN: None, LINES: None}, "8 KiB"),
    "tiny": Workload(tiny, 10, {PLAIN: 1.5}),
}


def tools(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: str, workload: Workload, others: bool
) -> dict[str, Around]:
    def tally(lines: str | None) -> Around:
        recording = os.path.join(folder, "run.tally")
        return lambda: torchtally.profile(model, optimizer, recording=recording, source_lines=lines)

    ours = {tool: tally(workload.lines if tool == LINES else None) for tool in workload.bars}
    if not others:
        return ours
    from torch.distributed._tools.mem_tracker import MemTracker

    @contextlib.contextmanager
    def tracker() -> Iterator[MemTracker]:
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        with tracker:
            yield tracker

    def profiler() -> contextlib.AbstractContextManager[object]:
        return torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, with_stack=True
        )

    return {**ours, "torch.profiler, memory and stacks": profiler, "MemTracker": tracker}


def keep_heap() -> None:
    """Tells glibc to keep what a step frees, where it would give it back and take it anew every step:
    a fifth of GPT-2's step is spent in such page faults, and no two steps have the same of them."""
    m_trim_threshold, m_mmap_max = -1, -4  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not (mallopt(m_mmap_max, 0) and mallopt(m_trim_threshold, 2**31 - 1)):
        print("The C library cannot be told to keep its heap: page faults are in the times.", file=sys.stderr)


def seconds(step: Step, steps: int, between: Step = lambda: None) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
        between()
    return time.perf_counter() - wall, time.process_time() - processor


def measure(name: str, rounds: int, steps: int | None, settle: int, others: bool) -> bool:
    workload = WORKLOADS[name]
    steps = steps or workload.steps
    model, optimizer, step = workload.make()
    for _ in range(3):
        step()
    taken: list[dict[str, tuple[float, float]]] = []  # of each round, by tool
    with tempfile.TemporaryDirectory() as folder:
        around: dict[str, Around | None] = {"": None, **tools(model, optimizer, folder, workload, others)}
        for number in range(rounds):
            order = list(around)
            order = order[number % len(order) :] + order[: number % len(order)]
            took = {}
            for tool in order:
                make_context = around[tool]
                if make_context is None:
                    for _ in range(settle):
                        step()
                    took[tool] = seconds(step, steps)
                    continue
                with make_context() as open_tool:
                    for _ in range(UNMEASURED if tool != "MemTracker" else 0):
                        step()
                    # MemTracker wants to be told between two steps.
                    between = getattr(open_tool, "reset_mod_stats", lambda: None)
                    took[tool] = seconds(step, steps, between)
            taken.append(took)
    good = True
    for tool in list(around)[1:]:
        texts: list[str] = []
        medians: list[float] = []
        for index, what in enumerate(("time", "processor time")):
            ratios = sorted(took[tool][index] / took[""][index] for took in taken)
            medians.append(statistics.median(ratios))
            texts.append(f"{what} {medians[-1]:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
        more = sorted((took[tool][0] - took[""][0]) / steps * 1e3 for took in taken)
        texts.append(f"added {statistics.median(more):.1f} ms a step ({more[0]:.1f} to {more[-1]:.1f})")
        fastest, fastest_plain = (min(took[one][0] for took in taken) for one in (tool, ""))
        texts.append(f"fastest rounds {fastest / fastest_plain:.3f}")
        print(f"{name}, {rounds} rounds of {steps} steps, {tool}: {', '.join(texts)}")
        bar = workload.bars.get(tool)
        if bar is not None:
            met = medians[0] <= bar
            print(f"  bar {bar}: {'met' if met else 'MISSED'}")
            good &= met
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, help="of a measurement; the fewer, the less changes in between")
    parser.add_argument("--settle", type=int, default=3, help="steps before each measurement without a tool")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--others", action="store_true", help="also torch.profiler and MemTracker")
    arguments = parser.parse_args()
    keep_heap()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    good = measure(
        arguments.workload, arguments.rounds, arguments.steps, arguments.settle, arguments.others
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
