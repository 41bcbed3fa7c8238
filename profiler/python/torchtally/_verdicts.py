# SPDX-License-Identifier: Apache-2.0
"""What a test can ask of the verdicts of a recording."""

from __future__ import annotations

from ._budget import Recorded, data_of

KINDS = ("checkpointing", "accumulation", "oom", "leak")


def assert_verdicts(recorded: Recorded, **expected: str | None) -> None:
    """Raises AssertionError, with the sentence and its evidence, where a verdict complains.

    >>> torchtally.assert_verdicts(p)                                # none complains
    >>> torchtally.assert_verdicts(p, accumulation="works", checkpointing="pays")
    >>> torchtally.assert_verdicts(p, accumulation="carries over")   # this one must complain

    recorded: a profile that has ended, its `data()`, or the path of a recording. expected: for a
    kind (checkpointing, accumulation, oom, leak) how its sentence begins, or None where there must be
    nothing to judge; docs/verdicts.md has all beginnings. A kind that is not named must not complain.
    Raises ValueError for another kind, or where nothing was recorded.
    """
    for kind in expected:
        if kind not in KINDS:
            raise ValueError(f"'{kind}' is no kind of verdict; there are {', '.join(KINDS)}")
    data = data_of(recorded)
    if not data.get("steps"):
        raise ValueError("there is no step to judge: nothing was recorded")
    found = {verdict["kind"]: verdict for verdict in data["verdicts"]}
    problems = []
    for kind in KINDS:
        verdict = found.get(kind)
        said = f"{kind}: {verdict['verdict']}" if verdict else f"{kind}: nothing to judge"
        evidence = "".join(f"\n    {line}" for line in verdict["evidence"]) if verdict else ""
        if kind not in expected:
            if verdict and verdict["tone"] == "bad":
                problems.append(said + evidence)
            continue
        beginning = expected[kind]
        if verdict is None and beginning is not None:
            problems.append(f"{said} (expected: {beginning} ...)")
        elif verdict is not None and beginning is None:
            problems.append(f"{said} (expected: nothing to judge){evidence}")
        elif verdict is not None and beginning and not verdict["verdict"].startswith(beginning):
            problems.append(f"{said} (expected: {beginning} ...){evidence}")
    if problems:
        raise AssertionError("verdicts: " + "\n".join(problems))
