# SPDX-License-Identifier: Apache-2.0
"""`torchtally run`: the script is as it was, and the recording says how it ended."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import torchtally

PROGRAM = pathlib.Path(torchtally.__file__).parent / "bin" / "torchtally"
TRAIN = """
import os, sys, time
import torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
optimizer = torch.optim.AdamW(model.parameters())
def train(steps):
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(torch.randn(8, 16)).square().mean()
        loss.backward()
        optimizer.step()
    return loss.item()
"""


def environment() -> dict[str, str]:
    return {**os.environ, "TORCHTALLY_PYTHON": sys.executable}


def run(folder, script, *arguments, options=(), command=(str(PROGRAM), "run"), **more):
    (folder / "train.py").write_text(TRAIN + textwrap.dedent(script))
    return subprocess.run([*command, *options, "train.py", *arguments], cwd=folder, text=True,
                          capture_output=True, env=environment(), timeout=300, **more)


def report(path) -> dict:
    return json.loads(subprocess.run([PROGRAM, "report", path, "--format", "json"], check=True,
                                     capture_output=True, text=True).stdout)


def check_books(data: dict, steps: int) -> None:
    assert len(data["steps"]) == steps
    for step in data["steps"]:
        for mark in step["devices"]["cpu"]["marks"]:
            assert mark["difference"] == 0 and mark["roles"]["unattributed"] == 0


def test_script_is_untouched(tmp_path):
    script = """
        print("loss", train(4), sys.argv, __name__, __file__, sys.stdin.read())
        print([name for name in os.environ if "TORCHTALLY" in name or name == "LD_PRELOAD"])
        print("to stderr", file=sys.stderr)
        sys.exit(3)
    """
    recorded = run(tmp_path, script, "--lr", "1", "-x", options=["--out", "a.tally", "--report", "a.html"],
                   input="typed")
    plain = run(tmp_path, script, "--lr", "1", "-x", command=(sys.executable,), input="typed")
    assert recorded.returncode == plain.returncode == 3, recorded.stderr
    lines, expected = recorded.stdout.splitlines(), plain.stdout.splitlines()
    assert lines[0].replace(str(tmp_path) + "/", "") == expected[0].replace(str(tmp_path) + "/", "")
    assert lines[1] == "[]"
    assert recorded.stderr == "to stderr\n"
    data = report(tmp_path / "a.tally")
    check_books(data, 4)
    assert any("SystemExit: 3" in note for note in data["unknown"]["notes"])
    assert (tmp_path / "a.html").stat().st_size > 1000


def test_budget_that_stops(tmp_path):
    script = """
        print([name for name in os.environ if "TORCHTALLY" in name])
        kept = torch.zeros(1 << 20)
        try:
            torch.zeros(1 << 21)
        except torch.OutOfMemoryError:
            print("failed")
        train(2)
    """
    result = run(tmp_path, script, options=["--budget", "8MiB", "--budget-stops"])
    assert result.stdout == "[]\nfailed\n", result.stderr
    data = report(tmp_path / "run.tally")
    assert any(mark["name"] == "oom" and mark["wanted_bytes"] == 8 << 20
               for mark in data["steps"][0]["devices"]["cpu"]["marks"])


def test_steps_and_module(tmp_path):
    (tmp_path / "train.py").write_text(TRAIN + "train(6)\n")
    subprocess.run([sys.executable, "-m", "torchtally", "run", "--steps", "2:5", "-m", "train"],
                   cwd=tmp_path, check=True, env=environment())
    data = report(tmp_path / "run.tally")
    check_books(data, 3)
    assert data["run"]["ended"] == "clean"


def test_exception(tmp_path):
    result = run(tmp_path, "train(2)\nraise ValueError('no more')\n")
    plain = run(tmp_path, "train(2)\nraise ValueError('no more')\n", command=(sys.executable,))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "ValueError: no more"
    assert "torchtally" not in result.stderr and "runpy" not in result.stderr
    assert len(result.stderr.splitlines()) == len(plain.stderr.splitlines())
    data = report(tmp_path / "run.tally")
    assert data["run"]["ended"] == "exception"
    assert any("ValueError: no more" in note for note in data["unknown"]["notes"])


def start_and_signal(folder, number) -> subprocess.Popen:
    (folder / "train.py").write_text(TRAIN + "train(3)\nprint('ready', flush=True)\ntime.sleep(100)\n")
    process = subprocess.Popen([PROGRAM, "run", "train.py"], cwd=folder, env=environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    time.sleep(1.0)  # the bookkeeper commits a step within 80 ms of its end
    process.send_signal(number)
    process.communicate(timeout=60)
    return process


def test_interrupted(tmp_path):
    process = start_and_signal(tmp_path, signal.SIGINT)
    assert process.returncode == -signal.SIGINT
    data = report(tmp_path / "run.tally")
    assert data["run"]["ended"] == "exception"
    assert any("KeyboardInterrupt" in note for note in data["unknown"]["notes"])
    assert len(data["steps"]) >= 3


def test_killed(tmp_path):
    process = start_and_signal(tmp_path, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    data = report(tmp_path / "run.tally")
    assert data["run"]["ended"] == "killed"
    check_books(data, 3)


def test_fork(tmp_path):
    result = run(tmp_path, """
        train(2)
        child = os.fork()
        if child == 0:  # torch itself cannot run a backward pass here
            del optimizer
            [torch.ones(64).add(1) for _ in range(10000)]
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        child = os.fork()
        if child == 0:
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        train(2)
    """)
    assert result.returncode == 0, result.stderr
    data = report(tmp_path / "run.tally")
    check_books(data, 4)
    assert data["run"]["ended"] == "clean"


def test_workers_of_a_loader(tmp_path):
    result = run(tmp_path, """
        def main():
            data = torch.utils.data.TensorDataset(torch.randn(32, 16))
            loader = torch.utils.data.DataLoader(data, batch_size=8, num_workers=2)
            for x, in loader:
                optimizer.zero_grad()
                model(x).sum().backward()
                optimizer.step()
        if __name__ == "__main__":
            main()
    """)
    assert result.returncode == 0, result.stderr
    check_books(report(tmp_path / "run.tally"), 4)


def test_ranks_have_their_own_recordings(tmp_path):
    result = run(tmp_path, """
        import torch.distributed as dist
        dist.init_process_group("gloo")
        train(2)
        dist.destroy_process_group()
    """, options=["--nproc", "2"])
    assert result.returncode == 0, result.stderr
    for rank in (0, 1):
        check_books(report(tmp_path / f"run.rank{rank}.tally"), 2)


@pytest.mark.parametrize("arguments, sentence", [
    ([], "say what to run"),
    (["missing.py"], "there is no script missing.py"),
    (["--stepz", "3", "train.py"], "--stepz is no option of torchtally run"),
    (["--budget", "lots", "train.py"], "--budget"),
    (["--steps", "5:2", "train.py"], "steps 5:2 are none"),
    (["--", "./missing"], "cannot start ./missing"),
])
def test_wrong_use(tmp_path, arguments, sentence):
    (tmp_path / "train.py").write_text("")
    result = subprocess.run([PROGRAM, "run", *arguments], cwd=tmp_path, capture_output=True, text=True,
                            env=environment())
    assert result.returncode == 2, result.stderr
    assert sentence in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run.tally").exists()
