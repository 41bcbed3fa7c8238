# SPDX-License-Identifier: Apache-2.0
"""Numbers of one step, flat, for TensorBoard and the like."""

from __future__ import annotations

from typing import Any


def scalars_of(data: dict[str, Any], number: int) -> dict[str, float]:
    steps = data.get("steps", [])
    if not -len(steps) <= number < len(steps):
        return {}
    step = steps[number]
    device = next(iter(step["devices"].values()))
    scalars = {"peak_bytes": float(device["peak"]["bytes"])}
    for role, size in device["peak"]["roles"].items():
        if size:
            scalars[f"peak/{role}_bytes"] = float(size)
    edges = [mark["saved_bytes"] for mark in device["marks"] if mark["name"] == "forward_edge"]
    if edges:
        scalars["saved_bytes"] = float(max(edges))
    flops = step["flops"]
    scalars["flops"] = float(
        sum(flops[phase] for phase in ("forward", "backward", "recompute", "optimizer"))
    )
    scalars["seconds"] = float(step["seconds"])
    return scalars
