# SPDX-License-Identifier: Apache-2.0
"""The profiler as a context manager."""

from __future__ import annotations

import atexit
import contextlib
import html
import json
import os
import pathlib
import re
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Union

import torch

from ._budget import read_recording, read_text
from ._kept import Kept
from ._library import TallyError, library
from ._names import Names
from ._optimizers import Optimizers
from ._scalars import scalars_of
from ._units import parse_bytes, parse_source_lines

PathLike = Union[str, "os.PathLike[str]"]
Modules = Union[torch.nn.Module, Sequence[torch.nn.Module], None]
OptimizerOrMore = Union[torch.optim.Optimizer, Sequence[torch.optim.Optimizer], None]

def parse_steps(steps: str | slice | tuple[int, int] | None) -> tuple[int, int | None]:
    """First step and the one after the last, of "3:10", ":10", "3:", "3". Raises ValueError."""
    if steps is None:
        return 0, None
    if isinstance(steps, slice):
        first, end = steps.start or 0, steps.stop
    elif isinstance(steps, str):
        match = re.fullmatch(r"(\d*):(\d*)|(\d+)", steps.strip())
        if not match:
            raise ValueError(f"'{steps}' are no steps; write 3:10 for steps 3 to 9, counted from 0")
        if match[3]:
            first, end = int(match[3]), int(match[3]) + 1
        else:
            first, end = int(match[1] or 0), int(match[2]) if match[2] else None
    else:
        first, end = steps
    if end is not None and end <= first:
        raise ValueError(f"steps {first}:{end} are none: the end must be after the beginning")
    return first, end


def with_rank(path: str, environment: "os._Environ[str] | dict[str, str]" = os.environ) -> str:
    """`run.tally` as `run.rank3.tally` in a distributed run, where each process has its own."""
    world, rank = environment.get("WORLD_SIZE", ""), environment.get("RANK", "")
    if not path or not world.isdecimal() or int(world) < 2 or not rank.isdecimal():
        return path
    whole = pathlib.PurePath(path)
    return str(whole.with_name(f"{whole.stem}.rank{rank}{whole.suffix}"))


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Iterable) and not isinstance(value, torch.nn.Module) else [value]


class Profile:
    """One recording of this process. Use it as a context manager; see `torchtally.profile`."""

    def __init__(
        self,
        model: Modules = None,
        optimizer: OptimizerOrMore = None,
        *,
        recording: PathLike = "run.tally",
        report: PathLike | None = None,
        steps: str | slice | tuple[int, int] | None = None,
        detail_steps: int = 3,
        budget: int | str | None = None,
        budget_stops: bool = False,
        source_lines: int | str | bool | None = "1 MiB",
        enabled: bool = True,
    ) -> None:
        self._models = _as_list(model)
        self._optimizers_given = _as_list(optimizer)
        self._recording = with_rank(os.fspath(recording))
        self._report = with_rank(os.fspath(report) if report is not None else "")
        self._first, self._end = parse_steps(steps)
        self._detail_steps = detail_steps
        self._budget = parse_bytes(budget) if budget is not None else 0
        self._budget_stops = budget_stops
        self._source_lines = parse_source_lines(source_lines)
        self._enabled = enabled
        self._stepped: set[int] = set()  # optimizers given that stepped in the open step
        self._updates = 0  # steps of the program that ended
        self._steps = 0  # of them recorded
        self._by_hand = False
        self._names: Names | None = None
        self._kept: Kept | None = None
        self._optimizers: Optimizers | None = None
        self._began = False
        self._recording_now = False
        self._done = False
        self._process = os.getpid()

    # ---- begin and end

    def start(self) -> Profile:
        """Begins the recording. Raises TallyError, TorchVersionError."""
        if self._done or self._optimizers is not None:
            raise TallyError("this profiler was started before; make a new one")
        if self._enabled:
            self._library = library()
            self._optimizers = Optimizers(self._after_update)
            self._optimizers.install()
            atexit.register(self._stop_at_exit)  # `stop` may never be called
            if self._first == 0:
                self._begin()
        return self

    def stop(self, error: BaseException | None = None) -> None:
        """Ends the recording and writes the report. `error`: what ended the run, if anything did."""
        if self._optimizers is not None:
            self._optimizers.remove()
            atexit.unregister(self._stop_at_exit)
        self._finish(error)
        self._done = True

    def _stop_at_exit(self) -> None:
        self.stop(getattr(sys, "last_value", None))  # what the interpreter ended with

    @contextlib.contextmanager
    def running(self) -> Iterator[Profile]:
        """Stops what `start` began when the block ends, and says how it ended."""
        try:
            yield self
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        self.stop()

    __enter__ = start

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if isinstance(error, SystemExit) and error.code in (None, 0):
            error = None
        self.stop(error)

    def _begin(self) -> None:
        problem = self._library.start(
            os.fsencode(self._recording),
            os.fsencode(self._report),
            self._detail_steps,
            self._budget,
            self._source_lines,
            int(self._budget_stops),
            1,
        )
        if problem is not None:
            assert self._optimizers is not None
            self._optimizers.remove()
            raise TallyError(problem.decode())
        self._recording = os.fsdecode(self._library.recording_path())
        self._report = os.fsdecode(self._library.report_path())
        if not self._library.records():  # switched off by the environment
            self._enabled = False
            return
        self._recording_now = self._began = True
        self._names = Names(self._library)
        assert self._optimizers is not None
        for number, module in enumerate(self._models):
            self._names.watch(module, "" if len(self._models) == 1 else f"{type(module).__name__}_{number}")
        self._optimizers.begin()
        for optimizer in self._optimizers_given:
            self._optimizers.watch(optimizer)
        self._names.install()
        self._kept = Kept(self._library)
        self._kept.install()
        self._library.step_begin()

    def _finish(self, error: BaseException | None) -> None:
        if not self._recording_now or os.getpid() != self._process:
            return
        self._recording_now = False
        if self._names is not None:
            self._names.remove()
        if self._kept is not None:
            self._kept.remove()
        if self._steps > 0 and (error is None or isinstance(error, SystemExit)):
            self._library.step_discard()  # what ran after the last update is no step
        note = ""
        if error is not None:
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            note = f"The run was ended by {' '.join(what.split())[:300]}."
        elif self._first > 0:
            note = f"Step 0 here is step {self._first} of the run."
        self._library.stop(b"exception" if error is not None else b"clean", note.encode())

    # ---- steps

    def _after_update(self, optimizer: torch.optim.Optimizer) -> None:
        if self._by_hand or os.getpid() != self._process:
            return
        given = self._optimizers_given
        if given:
            if not any(optimizer is one for one in given):
                return
            self._stepped.add(id(optimizer))
            if len(self._stepped) < len(given):
                return
            self._stepped.clear()
        self._step_ended()

    def _step_ended(self) -> None:
        self._updates += 1
        if self._recording_now:
            self._steps += 1
            if self._end is not None and self._updates >= self._end:
                self._library.step_end(0)
                self._finish(None)
            else:
                self._library.next_step()
        elif self._updates == self._first and not self._done and self._enabled:
            try:
                self._begin()
            except TallyError as error:  # the program goes on without it
                self._enabled = False
                print(f"torchtally: {error}; nothing is recorded", file=sys.stderr)

    def step(self) -> None:
        """Ends a step here. From the first call on, optimizers no longer end one by themselves."""
        if not self._by_hand:
            self._by_hand = True
        if self._enabled:
            self._step_ended()

    def discard(self) -> None:
        """Forgets what ran since the last update: an evaluation, say, is no part of a training step.

        Only for what begins and ends between two steps: between two backward passes of one step it
        would forget the first. Does nothing between the updates of several optimizers.
        """
        if self._recording_now and not self._stepped and os.getpid() == self._process:
            self._library.step_discard()
            self._library.step_begin()

    def micro_step(self) -> None:
        """A new micro-batch begins. Optional: a backward pass ends a micro-step by itself."""
        if self._recording_now:
            self._library.micro_step()

    def input(self, *tensors: torch.Tensor) -> None:
        """Names tensors as data of this step, where the way they are used does not tell."""
        if self._recording_now:
            for tensor in tensors:
                torch.ops.torchtally.input.default(tensor)

    def watch(self, module: torch.nn.Module, name: str = "") -> None:
        """Names a module that was made or changed after the start."""
        if self._recording_now and self._names is not None:
            self._names.watch(module, name)

    # ---- results

    @property
    def recording(self) -> str:
        """Path of the recording, with the environment and the rank applied."""
        return self._recording

    @property
    def updates(self) -> int:
        """How many steps of the program have ended, recorded or not."""
        return self._updates

    @property
    def report(self) -> str:
        """Path of the HTML page; "" when there is none."""
        return self._report

    @property
    def records(self) -> bool:
        """Whether there is a recording: not when switched off, nor before the first step wanted."""
        return self._has_recording()

    def summary(self) -> str:
        """The report as text, as ``torchtally report`` prints it. Raises TallyError."""
        if not self._has_recording():
            return ""
        return self._library.text() if self._is_latest() else read_text(self._recording)

    def data(self) -> dict[str, Any]:
        """Everything that the report says; the keys are those of ``report --format json``."""
        if not self._has_recording():
            return {}
        if not self._is_latest():
            return read_recording(self._recording)
        data: dict[str, Any] = json.loads(self._library.json())
        return data

    def verdicts(self) -> dict[str, str]:
        """What the report judges, by kind: checkpointing, accumulation, oom, leak.

        Each is the sentence of its card, which begins with the verdict ("pays: ..."); a kind that
        there was nothing to judge of is left out. docs/verdicts.md has all verdicts; `data()` has
        their evidence and remedies. Raises TallyError.
        """
        return {verdict["kind"]: verdict["verdict"] for verdict in self.data().get("verdicts", [])}

    def scalars(self, step: int = -1) -> dict[str, float]:
        """Numbers of a step, by default the last, flat, for TensorBoard and the like.

        `peak_bytes`; `peak/<role>_bytes` for each role that is not 0; `saved_bytes` (the most that
        autograd held at a backward pass); `flops`; `seconds`. `step`: its place among the recorded
        ones, from the end if negative. {} where there is none. Raises TallyError.
        """
        return scalars_of(self.data(), step)

    def _is_latest(self) -> bool:
        """The plug-in knows one recording, the last that was begun."""
        return os.fsdecode(self._library.recording_path()) == self._recording

    def _has_recording(self) -> bool:
        return self._began

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.summary())}</pre>"


def profile(
    model: Modules = None,
    optimizer: OptimizerOrMore = None,
    *,
    recording: PathLike = "run.tally",
    report: PathLike | None = None,
    steps: str | slice | tuple[int, int] | None = None,
    detail_steps: int = 3,
    budget: int | str | None = None,
    budget_stops: bool = False,
    source_lines: int | str | bool | None = "1 MiB",
    enabled: bool = True,
) -> Profile:
    """Says where every byte and every FLOP of each training step goes.

    >>> with torchtally.profile(model, optimizer, report="report.html") as p:
    ...     for batch in loader:
    ...         train(batch)            # a step ends with optimizer.step()
    >>> print(p.summary())

    model: module or modules to name; without it they are named when they are first called.
    optimizer: those whose step ends a step (all of them, if more are given); without it any does.
    recording: the SQLite file that is written; an old one is replaced. In a distributed run each
      process gets its own (``run.rank0.tally``).
    report: an HTML page that is written at the end.
    steps: which steps of the run to record, counted from 0: "3:10" are 3 to 9. Default: all.
    detail_steps: recorded steps at the beginning that are kept with every block and operator.
    budget: bytes ("8 GiB"); a step that has more alive gets a mark `oom`.
    budget_stops: an allocation on the CPU that would pass the budget fails with
      torch.OutOfMemoryError, as on a machine of that size.
    source_lines: bytes; of blocks of this size and more the line of Python that made them is
      recorded. None or False: of none.
    enabled: False makes it do nothing.

    The environment variables TORCHTALLY_* win over these. Raises TallyError when it cannot start,
    TorchVersionError when the package was built for another torch.
    """
    return Profile(
        model,
        optimizer,
        recording=recording,
        report=report,
        steps=steps,
        detail_steps=detail_steps,
        budget=budget,
        budget_stops=budget_stops,
        source_lines=source_lines,
        enabled=enabled,
    )
