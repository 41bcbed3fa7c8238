# SPDX-License-Identifier: Apache-2.0
"""What is done around a module's call costs: by the profiler, and by empty global forward hooks.

    PYTHONPATH=build/python python tests/benchmarks/python_module_calls.py --rounds 150

One recording of the 300 layers of python_overhead.py. From step to step chance decides what stands
around a module's call: nothing, the profiler's function, or a global forward pre-hook and a forward
hook that do nothing. Operators are recorded in every step. Printed: microseconds that the forward pass
takes for a layer, and what is added to it; of each kind the mean of the steps between the 10th and the
60th percentile, and the fastest step.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

import torchtally
from python_overhead import keep_heap, tiny


def fast_steps(seconds: list[float]) -> float:
    kept = sorted(seconds)[len(seconds) // 10 : len(seconds) * 6 // 10 + 1]
    return sum(kept) / len(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=150, help="steps of each kind")
    rounds = parser.parse_args().rounds
    keep_heap()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, optimizer, step = tiny()
    layers = len(list(model.children()))
    for _ in range(3):
        step()

    def forward() -> float:
        optimizer.zero_grad()
        x = torch.randn(8, 16)
        begin = time.perf_counter()
        y = model(x).sum()
        end = time.perf_counter()
        y.backward()
        optimizer.step()
        return end - begin

    def with_hooks() -> float:
        handles = [
            register_module_forward_pre_hook(lambda module, arguments: None),
            register_module_forward_hook(lambda module, arguments, result: None, always_call=True),
        ]
        try:
            return forward()
        finally:
            for handle in handles:
                handle.remove()

    with tempfile.TemporaryDirectory() as folder:
        recording = os.path.join(folder, "run.tally")
        with torchtally.profile(model, optimizer, recording=recording, source_lines=None) as profile:
            names = profile._names
            assert names is not None

            def with_profiler() -> float:
                names.install()
                try:
                    return forward()
                finally:
                    names.remove()

            names.remove()
            for _ in range(3):
                forward()
            kinds: dict[str, Callable[[], float]] = {
                "nothing": forward,
                "the profiler": with_profiler,
                "empty global hooks": with_hooks,
            }
            taken: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(rounds):
                for kind in random.sample(list(kinds), len(kinds)):
                    taken[kind].append(kinds[kind]())
    for kind, seconds in taken.items():
        mean, fastest = fast_steps(seconds) / layers * 1e6, min(seconds) / layers * 1e6
        more = mean - fast_steps(taken["nothing"]) / layers * 1e6
        more_fastest = fastest - min(taken["nothing"]) / layers * 1e6
        print(
            f"{kind}: {mean:.1f} us a layer ({more:+.1f}), fastest step {fastest:.1f} ({more_fastest:+.1f})"
        )


if __name__ == "__main__":
    main()
