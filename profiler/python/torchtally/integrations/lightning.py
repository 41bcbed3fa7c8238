# SPDX-License-Identifier: Apache-2.0
"""A callback for the Trainer of Lightning (`lightning`, or the older package `pytorch_lightning`).

    from torchtally.integrations.lightning import TorchTallyCallback

    tally = TorchTallyCallback(report="report.html")
    Trainer(max_epochs=1, callbacks=[tally]).fit(module, loader)
    print(tally.profile.summary())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._profile import Profile

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        from pytorch_lightning import Callback


class TorchTallyCallback(Callback):
    """Records a fit: a step is one update, a micro-step one batch of the accumulation.

    options: those of `torchtally.profile` (recording, report, steps, detail_steps, budget,
      budget_stops, source_lines, enabled).
    `profile` is the recording of the last `fit()`; ask it for `summary()`, `data()`, `scalars()`.
    With several optimizers a step ends when each of them stepped. A validation is no part of a step,
    unless it falls between two batches of one. `fit()` raises TallyError when the recording cannot
    start.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.profile = Profile(**options)
        self._backward_after = -1  # how many updates came before the last backward pass

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.profile.stop()
        self.profile = Profile(pl_module, trainer.optimizers, **self._options).start()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._backward_after = self.profile.updates

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.profile.updates > self._backward_after:
            self.profile.discard()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.profile.stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.profile.stop(exception)
