# SPDX-License-Identifier: Apache-2.0
"""The callbacks with the real packages, what they show, and what the verdicts say of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import torchtally

WORDS, TOKENS = 96, 16


def checked(data: dict, unattributed: int = 0) -> list[dict]:
    """The steps, after the books of each are found closed with nothing unattributed."""
    for step in data["steps"]:
        for mark in step["devices"]["cpu"]["marks"]:
            assert mark["difference"] == 0 and mark["roles"]["unattributed"] <= unattributed, mark
            assert sum(mark["roles"].values()) == mark["bytes"]
    return data["steps"]


def test_importing_the_package_imports_no_trainer():
    code = (
        "import sys, torchtally, torchtally.integrations; torchtally.profile, torchtally.estimate\n"
        "wrong = {'transformers', 'accelerate', 'lightning', 'tensorboard'} & set(sys.modules)\n"
        "sys.exit(', '.join(wrong) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# ---- Hugging Face


class Sentences(torch.utils.data.Dataset):
    def __init__(self, count: int) -> None:
        self.ids = torch.randint(WORDS, (count, TOKENS), generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def hugging_face(folder, callbacks, **arguments):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    torch.manual_seed(3)
    config = transformers.GPT2Config(n_layer=4, n_embd=32, n_head=2, vocab_size=WORDS, n_positions=TOKENS)
    model = transformers.GPT2LMHeadModel(config)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "out"), report_to=[], use_cpu=True, disable_tqdm=True, seed=5,
        per_device_train_batch_size=2, **{"max_steps": 3, "save_strategy": "no", **arguments},
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=Sentences(32), eval_dataset=Sentences(4), callbacks=callbacks
    )
    trainer.train()
    return model


GRADIENT_NORM = 4  # bytes: the number that the Trainer keeps of the clipping, for its log

ACCUMULATION = {
    "gradient_accumulation_steps": 4,
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
}


@pytest.fixture
def tally(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from torchtally.integrations.huggingface import TorchTallyCallback

    return TorchTallyCallback(recording=tmp_path / "run.tally", report=tmp_path / "report.html")


@pytest.mark.parametrize("reentrant", [False, True], ids=["non_reentrant", "reentrant"])
def test_hugging_face_with_accumulation_and_checkpointing(tmp_path, tally, reentrant):
    arguments = {**ACCUMULATION, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    model = hugging_face(tmp_path, [tally], **arguments)
    plain = hugging_face(tmp_path, [], **arguments)
    for one, other in zip(model.parameters(), plain.parameters()):
        assert torch.equal(one, other)
    data = tally.profile.data()
    steps = checked(data, GRADIENT_NORM)
    assert len(steps) == 3 and data["run"]["ended"] == "clean"
    parameters = sum(p.nbytes for p in model.parameters())
    for step in steps:
        marks = step["devices"]["cpu"]["marks"]
        assert sum(mark["name"] == "forward_edge" for mark in marks) == 4
        assert step["flops"]["recompute"] > 0
        end = next(mark["roles"] for mark in marks if mark["name"] == "end")
        assert end["parameter"] == end["gradient"] == parameters
        assert end["optimizer_state"] == 2 * parameters + 4 * len(list(model.parameters()))
    assert (tmp_path / "report.html").stat().st_size > 0
    # No false alarm.
    torchtally.assert_verdicts(tally.profile, accumulation="works", checkpointing="pays")
    assert "transformer.h.3.attn" in {module["name"] for module in data["modules"]}


def test_hugging_face_evaluates_and_saves_between_steps(tmp_path, tally):
    hugging_face(tmp_path, [tally], eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=2)
    steps = checked(tally.profile.data(), GRADIENT_NORM)
    assert len(steps) == 3
    # An evaluation is no part of a step: each has the FLOPs of one batch.
    assert len({step["flops"]["forward"] for step in steps}) == 1
    torchtally.assert_verdicts(tally.profile, accumulation=None)


def test_hugging_face_trains_again_after_an_exception(tmp_path, tally):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        hugging_face(tmp_path, [tally, Stop()])
    hugging_face(tmp_path, [tally])
    assert len(checked(tally.profile.data(), GRADIENT_NORM)) == 3


def test_a_script_that_raises_says_so_in_its_recording(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import torch, torchtally\n"
        "model = torch.nn.Linear(4, 4)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "p = torchtally.profile(model, optimizer).start()\n"
        "for _ in range(2):\n"
        "    model(torch.ones(2, 4)).sum().backward()\n"
        "    optimizer.step()\n"
        "raise ValueError('no more data')\n"
    )
    result = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    from torchtally._budget import read_recording

    data = read_recording(tmp_path / "run.tally")
    # The third step never came to its update; its books are of the moment when the script ended.
    assert data["run"]["ended"] == "exception" and len(data["steps"]) == 3
    assert "ValueError: no more data" in str(data["unknown"]["notes"])


# ---- Lightning


def lightning_fit(folder, callbacks, manual: bool = False, **options):
    pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = not manual
            self.encoder = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64))
            self.head = torch.nn.Linear(64, 4)

        def training_step(self, batch, index):
            loss = self.head(self.encoder(batch)).square().mean()
            if manual:
                for optimizer in self.optimizers():
                    optimizer.zero_grad()
                self.manual_backward(loss)
                for optimizer in self.optimizers():
                    optimizer.step()
            return loss

        def validation_step(self, batch, index):
            self.head(self.encoder(batch))

        def configure_optimizers(self):
            if manual:
                return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.encoder, self.head)]
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    torch.manual_seed(3)
    class Batches(torch.utils.data.Dataset):
        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

        def __getitem__(self, index):
            return torch.randn(8, 16, generator=torch.Generator().manual_seed(index))

    module = Net()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=str(folder), callbacks=callbacks,
        **{"max_steps": 4, **options},
    )  # fmt: skip
    loaders = [torch.utils.data.DataLoader(Batches(count), batch_size=None) for count in (12, 2)]
    trainer.fit(module, *loaders)
    return module


@pytest.fixture
def lightning_tally(tmp_path):
    pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from torchtally.integrations.lightning import TorchTallyCallback

    return TorchTallyCallback(recording=tmp_path / "run.tally")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning(tmp_path, lightning_tally, accumulate):
    options = {"accumulate_grad_batches": accumulate, "val_check_interval": 4}
    module = lightning_fit(tmp_path, [lightning_tally], **options)
    plain = lightning_fit(tmp_path, [], **options)
    for one, other in zip(module.parameters(), plain.parameters()):
        assert torch.equal(one, other)
    data = lightning_tally.profile.data()
    steps = checked(data)
    assert len(steps) == 4 and data["run"]["ended"] == "clean"
    parameters = sum(p.nbytes for p in module.parameters())
    hidden = 8 * 64 * 4
    for step in steps:
        marks = step["devices"]["cpu"]["marks"]
        edges = [mark for mark in marks if mark["name"] == "forward_edge"]
        assert len(edges) == accumulate
        # Kept: the input, the results of tanh and of the encoder, the output for its square.
        assert {edge["saved_bytes"] for edge in edges} == {8 * 16 * 4 + 2 * hidden + 8 * 4 * 4}
        end = next(mark["roles"] for mark in marks if mark["name"] == "end")
        assert end["parameter"] == end["gradient"] == parameters
        assert end["optimizer_state"] == 2 * parameters + 4 * len(list(module.parameters()))
    flops = {(step["flops"]["forward"], step["flops"]["backward"]) for step in steps}
    assert len(flops) == 1 and 0 < flops.pop()[0]
    torchtally.assert_verdicts(lightning_tally.profile, accumulation="works" if accumulate > 1 else None)


def test_lightning_with_two_optimizers_by_hand(tmp_path, lightning_tally):
    # Lightning counts each optimizer's step.
    lightning_fit(tmp_path, [lightning_tally], manual=True, max_steps=6)
    assert len(checked(lightning_tally.profile.data())) == 3


def test_lightning_says_what_ended_it(tmp_path, lightning_tally):
    pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

    class Stop(pl.Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        lightning_fit(tmp_path, [lightning_tally, Stop()])
    data = lightning_tally.profile.data()
    assert data["run"]["ended"] == "exception" and "RuntimeError: enough" in str(data["unknown"]["notes"])


# ---- TensorBoard


def test_tensorboard_shows_the_scalars(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torchtally.profile(model, optimizer, recording=tmp_path / "run.tally") as p:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(4, 64)).sum().backward()
            optimizer.step()
    steps = len(p.data()["steps"])
    with SummaryWriter(str(tmp_path / "board")) as writer:
        for step in range(steps):
            for name, value in p.scalars(step).items():
                writer.add_scalar(f"torchtally/{name}", value, step)
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    read = board.Scalars("torchtally/peak/parameter_bytes")
    assert [(event.step, event.value) for event in read] == [(step, 4.0 * 65 * 64) for step in range(3)]
    peaks = [event.value for event in board.Scalars("torchtally/peak_bytes")]
    assert peaks == [step["devices"]["cpu"]["peak"]["bytes"] for step in p.data()["steps"]]
    assert p.scalars() == p.scalars(2) and p.scalars(3) == {} == p.scalars(-4)
