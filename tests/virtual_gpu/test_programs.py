# SPDX-License-Identifier: Apache-2.0
"""Training programs on the virtual card under the profiler: the books close at every mark, to the byte,
against LibTorch's caching allocator, whether the profiler is there from the first byte or comes later."""
from __future__ import annotations

import gc
import os
import resource
import shutil
import sysconfig

import programs
import pytest
import torch
import torchtally
from programs import GIB, Program

torch.set_num_threads(1)  # the card computes nothing


def stat(name: str, device: int = 0) -> int:
    return torch.cuda.memory_stats(device)[f"{name}.all.current"]


def nbytes(tensors) -> int:
    """Of their unique storages on the first card."""
    local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in local
                if t.device == torch.device("cuda:0")}
    return sum(storages.values())


def check_books(data: dict, devices: int = 1) -> int:
    """At every mark of every card; returns how many marks there were."""
    marks = 0
    for step in data["steps"]:
        cards = [name for name in step["devices"] if name.startswith("cuda:")]
        for name in cards:
            device = step["devices"][name]
            assert device["largest_difference"] == 0
            for mark in device["marks"]:
                where = f"step {step['index']}, {name}, {mark['name']}: {mark}"
                blocks = sum(size for role, size in mark["roles"].items()
                             if role not in ("rounding", "cached", "outside_allocator"))
                assert mark["difference"] == 0 and blocks == mark["bytes"], where
                caching = mark["caching"]
                assert caching["exact"], where
                marks += 1
                if caching["allocator_reserved_bytes"] is None:  # a card that is used first in this step
                    assert step["index"] == 0 and mark["name"] in ("start", "peak"), where
                    continue
                assert caching["allocator_reserved_bytes"] == caching["reserved_bytes"], where
                if mark["name"] != "peak":  # known only afterwards, when the allocator cannot be asked
                    assert caching["allocator_active_bytes"] == caching["active_bytes"], where
                    assert caching["allocator_allocated_bytes"] == caching["allocated_bytes"], where
    assert len(cards) == devices, cards  # of the last step
    assert data["run"]["ended"] in ("clean", "exception")
    return marks


def mark_of(data: dict, name: str, step: int = -1, device: str = "cuda:0") -> dict:
    return [mark for mark in data["steps"][step]["devices"][device]["marks"] if mark["name"] == name][-1]


def clear_card() -> None:
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


class Recorded:
    """A program's training under the profiler, and what the allocator and torch's objects say of it."""

    def __init__(self, make, path, *, attached: str, steps: int = 3, by_hand: bool = False) -> None:
        clear_card()
        self.make, self.by_hand = make, by_hand
        profile = torchtally.profile(recording=path / "run.tally")
        if attached == "start":
            with profile:
                self.train(profile, self.begin(profile), steps)
        else:
            program = self.begin(None)
            program.step()
            torch.cuda.reset_peak_memory_stats()
            with profile:
                self.begin_by_hand(profile)
                self.train(profile, program, steps)
        self.data = profile.data()

    def begin_by_hand(self, profile) -> None:
        if profile and self.by_hand:  # what replays a graph never calls the optimizer
            profile.step()

    def begin(self, profile) -> Program:
        program = self.make()
        self.begin_by_hand(profile)
        return program

    def train(self, profile, program: Program, steps: int) -> None:
        def at_the_end(*_: object) -> None:  # of a step, for the profiler as well
            self.requested = [stat("requested_bytes", i) for i in range(torch.cuda.device_count())]

        program.optimizer.register_step_post_hook(at_the_end)
        for _ in range(steps):
            program.step()
            if self.by_hand:
                at_the_end()
                profile.step()
        self.peak = torch.cuda.memory_stats(0)["requested_bytes.all.peak"]
        self.reserved_peak = torch.cuda.memory_stats(0)["reserved_bytes.all.peak"]
        self.parameters = nbytes(program.model.parameters())
        self.gradients = nbytes(p.grad for p in program.model.parameters() if p.grad is not None)
        self.state = nbytes(t for s in program.optimizer.state.values() for t in s.values()
                            if isinstance(t, torch.Tensor))
        self.buffers = nbytes(program.model.buffers())

    def check(self, *, devices: int = 1, sharded: bool = False) -> None:
        assert check_books(self.data, devices) >= 4
        end = mark_of(self.data, "end")
        roles = end["roles"]
        assert end["bytes"] == self.requested[0]
        assert max(step["devices"]["cuda:0"]["peak"]["bytes"] for step in self.data["steps"]) == self.peak
        assert roles["parameter"] == self.parameters > 0
        assert self.gradients > 0
        if sharded:  # FSDP2 scatters gradients into a buffer of its own, and hangs that to `.grad`
            assert roles["gradient"] + roles["communication"] == self.gradients
        else:
            assert roles["gradient"] == self.gradients
        assert roles["optimizer_state"] == self.state
        assert roles["buffer"] == self.buffers
        assert roles["unattributed"] == 0


PROGRAMS = {
    "gpt": programs.gpt,
    "gpt in bf16 autocast": lambda: programs.gpt(autocast=torch.bfloat16),
    "gpt checkpointed": lambda: programs.gpt(checkpointed=True),
    "gpt accumulated": lambda: programs.gpt(micro_steps=3),
    "fp16 with GradScaler": programs.fp16_with_grad_scaler,
    "Hugging Face GPT-2": programs.hugging_face_gpt2,
    "ResNet-50": programs.resnet50,
    "LSTM": programs.lstm,
    "torch.compile, eager": lambda: programs.compiled("eager"),
    "torch.compile, aot_eager": lambda: programs.compiled("aot_eager"),
}


NEEDS = {"Hugging Face GPT-2": "transformers", "ResNet-50": "torchvision"}


@pytest.mark.parametrize("attached", ["start", "middle"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program(name, attached, tmp_path):
    pytest.importorskip(NEEDS.get(name, "torch"))
    recorded = Recorded(PROGRAMS[name], tmp_path, attached=attached)
    recorded.check()


def test_llama_7b_fits_a_virtual_card_and_a_small_host(card, tmp_path):
    """100 GiB on the device, within 2 GiB of the host's memory."""
    pytest.importorskip("transformers")
    card.vgpu_set_total(160 * GIB)
    torch.backends.cuda.enable_cudnn_sdp(False)  # whose sizes the card cannot know
    recorded = Recorded(programs.llama_7b, tmp_path, attached="start", steps=2)
    recorded.check()
    parameters = 6_738_415_616  # as published
    assert recorded.parameters == recorded.gradients == 4 * parameters
    assert recorded.state == 2 * 4 * parameters
    assert recorded.peak > 100 * GIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * GIB >> 10


@pytest.mark.parametrize("attached", ["start", "middle"])
def test_fsdp2_as_rank_0_of_8(attached, tmp_path):
    with programs.rank_0_of(8):
        recorded = Recorded(programs.fully_sharded, tmp_path, attached=attached)
    recorded.check(sharded=True)
    whole = nbytes(programs.Gpt(layers=4).cuda().parameters())
    assert whole / 8 <= recorded.parameters < whole / 8 * 1.01  # each parameter is padded to shards
    assert all(step["devices"]["cuda:0"]["peak"]["roles"]["communication"] > 0
               for step in recorded.data["steps"])


@pytest.mark.parametrize("attached", ["start", "middle"])
def test_a_cuda_graph_of_the_whole_step(attached, tmp_path):
    recorded = Recorded(programs.graphed, tmp_path, attached=attached, steps=6, by_hand=True)
    recorded.check()
    # Seed and offset of the generator, which the capture made, are read as data.
    assert mark_of(recorded.data, "end")["roles"]["input"] >= 2 * 8
    ends = [mark_of(recorded.data, "end", step)["bytes"] for step in range(-3, 0)]
    assert len(set(ends)) == 1  # a replay allocates nothing


@pytest.mark.parametrize("attached", ["start", "middle"])
def test_two_devices(attached, tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two cards")
    recorded = Recorded(programs.two_devices, tmp_path, attached=attached)
    recorded.check(devices=2)
    second = mark_of(recorded.data, "end", device="cuda:1")
    assert second["bytes"] == recorded.requested[1]
    assert second["roles"]["parameter"] == second["roles"]["gradient"] == 4 * (1024 * 256 + 256)
    assert second["roles"]["optimizer_state"] == 2 * 4 * (1024 * 256 + 256)


@pytest.mark.parametrize("attached", ["start", "middle"])
def test_out_of_memory_at_2_gib(attached, card, tmp_path):
    """The batch grows until the card is full: the step that fails has a mark with the numbers."""
    clear_card()
    card.vgpu_set_total(2 * GIB)
    profile = torchtally.profile(recording=tmp_path / "run.tally")
    batch = 8

    def make() -> Program:
        with torch.device("cuda"):
            model = programs.Gpt()

        def loss() -> torch.Tensor:
            ids = programs.tokens(batch, 128, 1000)
            return torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())

        return programs.training(model, loss)

    if attached == "middle":
        program = make()
        program.step()
        torch.cuda.reset_peak_memory_stats()
    ooms = torch.cuda.memory_stats()["num_ooms"]
    with pytest.raises(torch.OutOfMemoryError) as error:
        with profile:
            if attached == "start":
                program = make()
            while batch < 1 << 12:
                program.step()
                batch *= 2
    assert torch.cuda.memory_stats()["num_ooms"] == ooms + 1
    data = profile.data()
    check_books(data)
    mark = mark_of(data, "oom")
    assert data["run"]["ended"] == "exception"
    assert mark["limit_bytes"] == 2 * GIB
    assert f"Tried to allocate {mark['wanted_bytes'] / (1 << 20):.2f} MiB" in str(error.value)
    assert mark["bytes"] + mark["wanted_bytes"] > mark["caching"]["reserved_bytes"]
    assert [v["kind"] for v in data["verdicts"]].count("oom") == 1


def test_torch_compile_with_inductor(tmp_path, monkeypatch):
    """Triton compiles real kernels for the card, with its own ptxas; they are launched and do nothing."""
    if not shutil.which("gcc") or not os.path.exists(sysconfig.get_path("include") + "/Python.h"):
        pytest.skip("Triton compiles its launcher, and needs a C compiler and Python.h")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    for attached in ("start", "middle"):
        Recorded(lambda: programs.compiled("inductor"), tmp_path, attached=attached).check()


def test_counters_beside_torch_profiler(tmp_path, monkeypatch):
    """The card has no counters and no activity records: CUPTI's own library says so, the run goes on, and
    torch.profiler, which uses the same library in the same process, has its trace."""
    monkeypatch.setenv("TORCHTALLY_COUNTERS", "1")
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as trace:
        recorded = Recorded(programs.gpt, tmp_path, attached="start")
    recorded.check()
    assert any(event.key == "aten::addmm" for event in trace.key_averages())
    source = next(s for s in recorded.data["run"]["sources"] if s["name"] == "cupti.counters")
    assert not source["available"]
    assert "CUPTI" in source["reason"], source
    assert any(note.startswith("Kernels have no names: CUPTI refuses to name kernels")
               for note in recorded.data["unknown"]["notes"])
