# SPDX-License-Identifier: Apache-2.0
"""Limits that a test can set on memory."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Union

from ._program import ask
from ._units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from ._profile import Profile

Recorded = Union["Profile", dict[str, Any], str, "os.PathLike[str]"]

ROLES = (
    "parameter", "buffer", "optimizer_state", "gradient", "activation", "recomputed_activation",
    "input", "held_output", "temporary_forward", "temporary_backward", "temporary_optimizer",
    "workspace", "communication", "external", "unattributed",
)
_GROUPS: dict[str, tuple[str, ...]] = {role: (role,) for role in ROLES}
_GROUPS |= {f"{role}s": (role,) for role in ROLES}
_GROUPS |= {
    "activations": ("activation", "recomputed_activation"),
    "temporaries": ("temporary_forward", "temporary_backward", "temporary_optimizer"),
    "optimizer_states": ("optimizer_state",),
    "communication": ("communication",),
    "workspace": ("workspace",),
}


def read_text(path: str | os.PathLike[str], form: str = "text") -> str:
    """What ``torchtally report`` says of a recording. Raises ValueError."""
    return ask("report", os.fspath(path), "--format", form)


def read_recording(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The same with the keys of ``--format json``. Raises ValueError."""
    data: dict[str, Any] = json.loads(read_text(path, "json"))
    return data


def data_of(recorded: Recorded) -> dict[str, Any]:
    """What `data()` gives of a profile that has ended, of its data, or of a recording by its path."""
    if isinstance(recorded, dict):
        return recorded
    if isinstance(recorded, (str, os.PathLike)):
        return read_recording(recorded)
    return recorded.data()


def highest(data: dict[str, Any], what: str) -> tuple[int, int, str]:
    """Bytes, step and mark of the most that `what` ever had at a mark; "peak": of everything."""
    best = (0, 0, "start")
    for step in data.get("steps", []):
        for device in step["devices"].values():
            for mark in device["marks"]:
                if what == "peak":
                    size = mark["bytes"]
                elif what == "saved":
                    size = mark["saved_bytes"]
                else:
                    size = sum(mark["roles"].get(role, 0) for role in _GROUPS[what])
                if size > best[0]:
                    best = (size, step["index"], mark["name"])
    return best


def assert_budget(
    recorded: Recorded,
    peak: int | str | None = None,
    **limits: int | str,
) -> None:
    """Raises AssertionError, with what was too much, where a recording has more than it may.

    >>> torchtally.assert_budget(p, peak="1.2 GiB", activations="800 MiB", saved="600 MiB")

    recorded: a profile that has ended, its `data()`, or the path of a recording.
    peak: the most bytes alive. Other limits: a role of docs/roles.md (`gradient` or `gradients`),
    `temporaries` (of all phases), or `saved` (what autograd kept). Each is held against every mark
    of every step. Raises ValueError for a name or a size without sense.
    """
    data = data_of(recorded)
    if not data.get("steps"):
        raise ValueError("there is no step to hold against the budget: nothing was recorded")
    wanted = dict(limits) if peak is None else {"peak": peak, **limits}
    if not wanted:
        raise ValueError("no budget was given; write for example peak='1.2 GiB'")
    problems = []
    for what, limit in wanted.items():
        if what not in ("peak", "saved") and what not in _GROUPS:
            raise ValueError(f"'{what}' is no role; there are peak, saved, temporaries, {', '.join(ROLES)}")
        allowed = parse_bytes(limit)
        size, step, mark = highest(data, what)
        if size > allowed:
            problems.append(
                f"{what.replace('_', ' ')}: {format_bytes(size)} ({size:,} bytes) in step {step} at "
                f"{mark.replace('_', ' ')}, {format_bytes(allowed)} allowed"
            )
    if problems:
        raise AssertionError("over budget: " + "; ".join(problems))
