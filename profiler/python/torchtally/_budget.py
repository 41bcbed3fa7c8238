# SPDX-License-Identifier: Apache-2.0
"""Limits that a test can set on memory."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any, Union

from ._units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from ._profile import Profile

ROLES = (
    "parameter", "buffer", "optimizer_state", "gradient", "activation", "recomputed_activation",
    "input", "held_output", "temporary_forward", "temporary_backward", "temporary_optimizer",
    "workspace", "communication", "external", "unattributed",
)
_GROUPS = {role: (role,) for role in ROLES} | {f"{role}s": (role,) for role in ROLES}
_GROUPS |= {
    "activations": ("activation", "recomputed_activation"),
    "temporaries": ("temporary_forward", "temporary_backward", "temporary_optimizer"),
    "optimizer_states": ("optimizer_state",),
    "communication": ("communication",),
    "workspace": ("workspace",),
}


def read_text(path: str | os.PathLike[str], form: str = "text") -> str:
    """What ``torchtally report`` says of a recording. Raises ValueError."""
    program = os.path.join(os.path.dirname(os.path.realpath(__file__)), "bin", "torchtally")
    result = subprocess.run(
        [program, "report", os.fspath(path), "--format", form], capture_output=True, text=True
    )
    if result.returncode != 0:
        raise ValueError(result.stderr.strip().removeprefix("torchtally: "))
    return result.stdout


def read_recording(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The same with the keys of ``--format json``. Raises ValueError."""
    return json.loads(read_text(path, "json"))


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
    recorded: Union[Profile, dict[str, Any], str, os.PathLike[str]],
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
    if isinstance(recorded, dict):
        data = recorded
    elif isinstance(recorded, (str, os.PathLike)):
        data = read_recording(recorded)
    else:
        data = recorded.data()
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
