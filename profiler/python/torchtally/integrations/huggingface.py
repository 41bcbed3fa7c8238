# SPDX-License-Identifier: Apache-2.0
"""A callback for the Trainer of Hugging Face transformers (and for what derives from it, as TRL's).

    from torchtally.integrations.huggingface import TorchTallyCallback

    tally = TorchTallyCallback(report="report.html")
    Trainer(model=model, args=args, train_dataset=data, callbacks=[tally]).train()
    print(tally.profile.summary())
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .._profile import Profile


class TorchTallyCallback(TrainerCallback):
    """Records a training: a step is one update, a micro-step one batch of the accumulation.

    options: those of `torchtally.profile` (recording, report, steps, detail_steps, budget,
      budget_stops, source_lines, enabled).
    `profile` is the recording of the last `train()`; ask it for `summary()`, `data()`, `scalars()`.
    What an evaluation or the saving of a checkpoint needs is no part of a step. `train()` raises
    TallyError when the recording cannot start.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.profile = Profile(**options)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.profile.stop()  # of a training that ended with an exception
        optimizer = kwargs.get("optimizer")
        # accelerate wraps the optimizer whose step PyTorch tells of.
        optimizer = getattr(optimizer, "optimizer", optimizer)
        self.profile = Profile(kwargs.get("model"), optimizer, **self._options).start()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.profile.discard()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.profile.discard()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.profile.stop()
