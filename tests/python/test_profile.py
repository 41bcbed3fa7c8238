# SPDX-License-Identifier: Apache-2.0
"""The context manager: steps, names, results, errors."""

from __future__ import annotations

import pathlib

import pytest
import torch

import torchtally
from truth import Job


def mlp(steps: int = 3, micro_steps: int = 1, **options) -> Job:
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    optimizer = torch.optim.AdamW(model.parameters(), **options)

    def loss(number: int) -> torch.Tensor:
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(number))
        return model(x).square().mean()

    return Job(model, optimizer, loss, steps, micro_steps)


def train(job: Job, steps: int | None = None) -> None:
    for number in range(job.steps if steps is None else steps):
        job.optimizer.zero_grad()
        job.loss(number).backward()
        job.optimizer.step()


def module_names(p: torchtally.profile) -> set[str]:
    return {module["name"] for module in p.data()["modules"]}


def names_at_peak(data: dict) -> set[str]:
    return {block["module"] for block in data["peak_blocks"]}


@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}, {"fused": True},
                                     {"foreach": True, "amsgrad": True}],
                         ids=["foreach", "single", "fused", "amsgrad"])
def test_optimizers(checked, options):
    checked(lambda: mlp(**options)).check()


def test_gradient_accumulation(checked):
    result = checked(lambda: mlp(micro_steps=3))
    result.check()


def test_without_any_argument(tmp_path):
    job = mlp()
    with torchtally.profile(recording=tmp_path / "run.tally") as p:
        train(job)
    data = p.data()
    assert len(data["steps"]) == 3
    for step in data["steps"]:
        for mark in step["devices"]["cpu"]["marks"]:
            assert mark["difference"] == 0 and mark["roles"]["unattributed"] == 0
    end = data["steps"][-1]["devices"]["cpu"]["marks"][-1]["roles"]
    parameters = sum(p.nbytes for p in job.model.parameters())
    assert end["parameter"] == parameters and end["gradient"] == parameters
    assert end["optimizer_state"] == 2 * parameters + 4 * 4
    assert data["parameters"]["bytes"] == parameters
    assert {"0", "1", "2"} <= {module["name"] for module in data["modules"]}


def test_summary_and_scalars(tmp_path):
    job = mlp()
    with torchtally.profile(
        job.model, job.optimizer, recording=tmp_path / "run.tally", report=tmp_path / "page.html"
    ) as p:
        train(job)
    assert p.summary().startswith("Peak ")
    assert "<pre>Peak " in p._repr_html_()
    assert (tmp_path / "page.html").read_text().lstrip().lower().startswith("<!doctype html")
    scalars = p.scalars()
    peak = p.data()["steps"][-1]["devices"]["cpu"]["peak"]["bytes"]
    assert scalars["peak_bytes"] == peak
    assert sum(v for k, v in scalars.items() if k.startswith("peak/")) == peak
    assert all(isinstance(value, float) for value in scalars.values())


def test_steps_are_a_part_of_the_run(tmp_path):
    job = mlp(steps=8)
    with torchtally.profile(job.model, recording=tmp_path / "run.tally", steps="3:5") as p:
        train(job)
    data = p.data()
    assert len(data["steps"]) == 2
    assert any("step 3 of the run" in note for note in data["unknown"]["notes"])
    for step in data["steps"]:
        assert all(m["difference"] == 0 for m in step["devices"]["cpu"]["marks"])
        end = step["devices"]["cpu"]["marks"][-1]["roles"]
        parameters = sum(p.nbytes for p in job.model.parameters())
        assert end["unattributed"] == 0
        assert end["optimizer_state"] == 2 * parameters + 4 * 4  # made before the recording began


def test_each_profile_keeps_its_own_results(tmp_path):
    profiles = []
    for steps in (2, 3):
        with torchtally.profile(recording=tmp_path / f"{steps}.tally") as p:
            train(mlp(), steps)
        profiles.append(p)
    assert [len(p.data()["steps"]) for p in profiles] == [2, 3]
    assert profiles[0].summary() != profiles[1].summary()


def test_step_by_hand(tmp_path):
    weight = torch.nn.Parameter(torch.ones(64))
    with torchtally.profile(recording=tmp_path / "run.tally") as p:
        for _ in range(4):
            (weight * weight).sum().backward()
            with torch.no_grad():
                weight -= 0.1 * weight.grad
            weight.grad = None
            p.step()
    assert len(p.data()["steps"]) == 4


def test_two_optimizers_are_one_step_when_both_are_given(tmp_path):
    a, b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    first, second = torch.optim.SGD(a.parameters()), torch.optim.SGD(b.parameters())
    with torchtally.profile([a, b], [first, second], recording=tmp_path / "run.tally") as p:
        for _ in range(3):
            for optimizer in (first, second):
                optimizer.zero_grad()
                b(a(torch.ones(2, 4))).sum().backward()
                optimizer.step()
    assert len(p.data()["steps"]) == 3


def test_exception_is_told(tmp_path):
    job = mlp()
    p = torchtally.profile(job.model, job.optimizer, recording=tmp_path / "run.tally")
    with pytest.raises(ValueError, match="wrong"), p:
        train(job)
        raise ValueError("something is wrong")
    assert p.data()["run"]["ended"] == "exception"
    assert any("ValueError: something is wrong" in note for note in p.data()["unknown"]["notes"])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_names_survive_exceptions_in_a_module(tmp_path, error):
    class Fails(torch.nn.Module):
        def forward(self, x):
            raise error("no")

    job = mlp()
    fails = torch.nn.Sequential(Fails())
    with torchtally.profile(job.model, job.optimizer, recording=tmp_path / "run.tally") as p:
        for number in range(2):
            with pytest.raises(error):
                fails(torch.ones(1))
            assert p._library.depth() == 0
            train(job, 1)
    modules = module_names(p)
    assert "0" in modules and "Fails" not in modules


def test_a_modules_call_is_as_it_was_before_and_after(tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, x, *, module, number=0):
            return x * number if module is self else None

    odd, call = Odd(), torch.nn.Module._call_impl
    with torchtally.profile(recording=tmp_path / "run.tally"):
        assert torch.nn.Module._call_impl is not call
        assert odd(torch.ones(1), module=odd, number=3) == 3
    assert torch.nn.Module._call_impl is call


def test_another_tool_around_a_modules_call_stays(tmp_path):
    """It comes while one recording goes on, sees another, and goes between the two that follow."""
    original = torch.nn.Module._call_impl
    seen = []

    def profile():
        job = mlp()
        return job, torchtally.profile(job.model, job.optimizer, recording=tmp_path / "run.tally")

    job, p = profile()
    with p:
        ours = torch.nn.Module._call_impl

        def theirs(module, *args, **kwargs):
            seen.append(type(module).__name__)
            return ours(module, *args, **kwargs)

        torch.nn.Module._call_impl = theirs
        train(job, 1)
    try:
        assert torch.nn.Module._call_impl is theirs
        expected = module_names(p)
        assert "0" in expected
        calls = len(seen)
        assert calls > 0
        job, p = profile()
        with p:
            train(job, 1)
        assert module_names(p) == expected
        assert len(seen) == 2 * calls
    finally:
        torch.nn.Module._call_impl = ours  # what they found, and passes on
    assert mlp().model(torch.ones(2, 16)).shape == (2, 4)
    job, p = profile()
    with p:
        train(job, 1)
    assert module_names(p) == expected
    assert torch.nn.Module._call_impl is original


def test_each_rank_has_the_recording_that_the_environment_names(tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "TORCHTALLY_RECORDING": str(tmp_path / "a.tally"),
                        "TORCHTALLY_REPORT": str(tmp_path / "a.html")}.items():
        monkeypatch.setenv(name, value)
    with torchtally.profile(recording=tmp_path / "b.tally") as p:
        train(mlp())
    assert p.recording == str(tmp_path / "a.rank1.tally")
    assert {path.name for path in tmp_path.iterdir()} == {"a.rank1.tally", "a.rank1.html"}


def test_verdicts_that_complain_fail_a_test(tmp_path):
    with torchtally.profile(recording=tmp_path / "run.tally", budget=1024) as p:
        train(mlp())
    with pytest.raises(AssertionError) as failure:
        torchtally.assert_verdicts(p)
    said = str(failure.value)
    assert said.startswith("verdicts: oom: the budget of 1.0 KiB was crossed in step 0")
    assert "\n    alive: " in said  # the evidence comes along
    torchtally.assert_verdicts(p, oom="the budget", accumulation=None)
    with pytest.raises(AssertionError, match="expected: an allocation"):
        torchtally.assert_verdicts(p, oom="an allocation")
    with pytest.raises(AssertionError, match=r"accumulation: nothing to judge \(expected: works"):
        torchtally.assert_verdicts(p, oom="the budget", accumulation="works")


def test_disabled(tmp_path, monkeypatch):
    with torchtally.profile(recording=tmp_path / "run.tally", enabled=False) as p:
        train(mlp())
    assert p.summary() == "" and p.scalars() == {} and not (tmp_path / "run.tally").exists()
    monkeypatch.setenv("TORCHTALLY_ENABLED", "0")
    with torchtally.profile(recording=tmp_path / "run.tally") as p:
        train(mlp())
    assert p.summary() == "" and not (tmp_path / "run.tally").exists()


def test_errors_are_sentences(tmp_path, monkeypatch):
    with pytest.raises(torchtally.TallyError, match="cannot"):
        torchtally.profile(recording=tmp_path / "missing" / "run.tally").start()
    with torchtally.profile(recording=tmp_path / "a.tally"):
        with pytest.raises(torchtally.TallyError, match="another profiler"):
            torchtally.profile(recording=tmp_path / "b.tally").start()
    with pytest.raises(ValueError, match="3:10"):
        torchtally.profile(steps="ten")
    with pytest.raises(ValueError, match="bytes"):
        torchtally.profile(budget="much")


def test_other_torch_is_one_sentence(monkeypatch):
    from torchtally import _build, _library

    monkeypatch.setattr(_build, "TORCH_VERSION", "2.10.0")
    with pytest.raises(torchtally.TorchVersionError) as error:
        _library._check_version()
    text = str(error.value)
    assert "2.10.0" in text and torch.__version__ in text and "pip install" in text
    assert "\n" not in text


def test_plug_in_needs_no_python():
    import subprocess

    from torchtally import _library

    symbols = subprocess.run(["nm", "-D", "--undefined-only", str(_library.PLUGIN)],
                             capture_output=True, text=True, check=True).stdout
    assert " Py" not in symbols and "_Py" not in symbols
    needed = subprocess.run(["readelf", "-d", str(_library.PLUGIN)], capture_output=True, text=True,
                            check=True).stdout
    libraries = {line.split("[")[1].rstrip("]") for line in needed.splitlines() if "(NEEDED)" in line}
    assert {name for name in libraries if "torch" in name} == {"libtorch_cpu.so"}
    assert "NODELETE" in needed


def test_package_is_typed():
    assert (pathlib.Path(torchtally.__file__).parent / "py.typed").exists()
