# SPDX-License-Identifier: Apache-2.0
"""Which line of the program made a block."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import textwrap
import threading

import pytest
import torch

import torchtally
from truth import Job

PROGRAM = pathlib.Path(torchtally.__file__).parent / "bin" / "torchtally"
HERE = pathlib.Path(__file__)
MIB = 1 << 20


def line_of(text: str) -> str:
    """Where this file has a line with `text`: "test_source_lines.py:12"."""
    lines = HERE.read_text().splitlines()
    found = [number for number, line in enumerate(lines, 1) if text in line and "line_of" not in line]
    assert len(found) == 1, f"{text}: {found}"
    return f"{HERE.name}:{found[0]}"


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(64, 256)
        self.act = torch.nn.GELU()
        self.last = torch.nn.Linear(256, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        hidden = self.act(hidden)
        return self.last(hidden)


def job() -> Job:
    model = Net()

    def loss(number: int) -> torch.Tensor:
        x = torch.randn(2048, 64, generator=torch.Generator().manual_seed(number))
        return model(x).square().mean()

    return Job(model, torch.optim.AdamW(model.parameters()), loss, steps=2)


def train(of: Job) -> None:
    for number in range(of.steps):
        of.loss(number).backward()
        of.optimizer.step()
        of.optimizer.zero_grad()


def lines_of(data: dict) -> dict[str, set[str]]:
    """By operator: the lines of its blocks at the peak, without folders."""
    lines: dict[str, set[str]] = {}
    for block in data["peak_blocks"]:
        name = pathlib.PurePath(block["source"]).name
        lines.setdefault(block["operator"], set()).add(name)
    return lines


def record(tmp_path, **options) -> dict:
    of = job()
    with torchtally.profile(of.model, of.optimizer, recording=tmp_path / "run.tally", **options) as p:
        train(of)
    return p.data()


def test_large_blocks_know_the_line_that_made_them(tmp_path):
    data = record(tmp_path)
    lines = lines_of(data)
    # The frames of torch.nn are passed over.
    assert line_of("hidden = self.act(hidden)") in lines["aten::gelu"]
    assert line_of("hidden = self.first(x)") in lines["aten::linear"]
    large = [block for block in data["peak_blocks"] if block["bytes"] >= MIB]
    small = [block for block in data["peak_blocks"] if block["bytes"] < MIB]
    assert len(large) >= 2 and all(block["source"] for block in large)
    assert small and not any(block["source"] for block in small)
    # The peak is made by a small block.
    peak = record(tmp_path, source_lines=1)["steps"][-1]["devices"]["cpu"]["peak"]
    assert peak["phase"] == "backward"
    assert pathlib.PurePath(peak["source"]).name == line_of("of.loss(number).backward()")


def test_text_and_page_show_it(tmp_path):
    of = job()
    with torchtally.profile(of.model, recording=tmp_path / "run.tally",
                            report=tmp_path / "run.html") as p:
        train(of)
    assert line_of("hidden = self.act(hidden)") in p.summary()
    page = json.loads(subprocess.run(
        [PROGRAM, "report", tmp_path / "run.tally", "--format", "json"], check=True,
        capture_output=True, text=True).stdout)
    assert lines_of(page) == lines_of(p.data())


@pytest.mark.parametrize("size", ["1 KiB", 1024, None, False, "off"], ids=str)
def test_size_from_which_on(tmp_path, size):
    blocks = record(tmp_path, source_lines=size)["peak_blocks"]
    for block in blocks:
        # What was alive before the recording began is of no line.
        made_here = block["operator"] != ""
        assert bool(block["source"]) == (bool(size) and size != "off" and made_here
                                         and block["bytes"] >= 1024), block


def test_environment_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHTALLY_SOURCE_LINES", "off")
    assert not any(block["source"] for block in record(tmp_path)["peak_blocks"])
    monkeypatch.setenv("TORCHTALLY_SOURCE_LINES", "lots")
    with pytest.raises(torchtally.TallyError, match="TORCHTALLY_SOURCE_LINES"):
        record(tmp_path)


def test_books_and_losses_are_the_same_with_a_line_of_every_block(checked):
    checked(job, source_lines=1).check()


class Squash(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x * 0.5
        return y

    @staticmethod
    def backward(ctx, gradient):
        made = gradient * 0.25
        Squash.kept = made  # alive at the peak
        return made * 2


def test_threads_and_functions_in_backward(tmp_path):
    kept = []
    x = torch.ones(512, 1024, requires_grad=True)

    def work() -> None:
        kept.append(torch.zeros(512, 1024))  # in a thread

    with torchtally.profile(recording=tmp_path / "run.tally") as p:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        Squash.apply(x).sum().backward()
        p.step()
    lines = {line for lines in lines_of(p.data()).values() for line in lines}
    assert {line_of("# in a thread"), line_of("made = gradient * 0.25")} <= lines
    Squash.kept = None


def test_out_of_memory_names_lines(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHTALLY_BUDGET_ACTION", "stop")
    with torchtally.profile(recording=tmp_path / "run.tally", budget="4 MiB") as p:
        kept = torch.zeros(3, MIB // 4)  # the first that lives
        with pytest.raises(RuntimeError, match="budget"):
            torch.zeros(2, MIB // 4)  # the one that fails
        p.step()
    del kept
    data = p.data()
    evidence = next(v["evidence"] for v in data["verdicts"] if v["kind"] == "oom")
    assert any(line.startswith("asked for by") and line.endswith(line_of("# the one that fails"))
               for line in evidence), evidence
    assert any(line.startswith("by line") and line_of("# the first that lives") in line
               for line in evidence), evidence
    oom = next(mark for mark in data["steps"][0]["devices"]["cpu"]["marks"] if mark["name"] == "oom")
    assert oom["source"].endswith(line_of("# the one that fails"))


def test_run_says_lines_of_the_script(tmp_path):
    (tmp_path / "train.py").write_text(textwrap.dedent("""
        import os, torch
        w = torch.ones(64, 64, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1)
        for step in range(2):
            hidden = torch.ones(64, 64) @ w
            hidden.square().sum().backward()
            optimizer.step()
        print([name for name in os.environ if "TORCHTALLY" in name])
    """).lstrip())
    done = subprocess.run([PROGRAM, "run", "--source-lines", "16KiB", "train.py"], cwd=tmp_path, text=True,
                          capture_output=True, env={**os.environ, "TORCHTALLY_PYTHON": sys.executable})
    assert done.returncode == 0 and done.stdout == "[]\n", done.stderr
    data = json.loads(subprocess.run([PROGRAM, "report", tmp_path / "run.tally", "--format", "json"],
                                     check=True, capture_output=True, text=True).stdout)
    assert "train.py:5" in {block["source"] for block in data["peak_blocks"]}
    wrong = subprocess.run([PROGRAM, "run", "--source-lines", "lots", "train.py"], cwd=tmp_path, text=True,
                           capture_output=True)
    assert wrong.returncode == 2 and "--source-lines" in wrong.stderr
