#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""memory_viz_check.py TORCH SNAPSHOT: PyTorch's own tool reads what we export.

TORCH is the folder of torch, SNAPSHOT what `torchtally export --format snapshot` wrote. Loads
torch/cuda/_memory_viz.py by itself (it needs nothing of torch) and runs its views; the sums in them
must be those of the blocks.
"""
import base64
import importlib.util
import json
import pathlib
import pickle
import re
import sys

torch, path = sys.argv[1:]
spec = importlib.util.spec_from_file_location(
    "memory_viz", pathlib.Path(torch) / "cuda" / "_memory_viz.py")
viz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(viz)

with open(path, "rb") as file:
    snapshot = pickle.load(file)
blocks = [b for segment in snapshot["segments"] for b in segment["blocks"]]
alive = sum(b["requested_size"] for b in blocks)
assert blocks and alive > 0

# The sum over each folded stack ("a;b;c bytes") is the sum of the blocks.
for view in (viz.memory, viz.segments):
    folded = view(snapshot, format_flamegraph=lambda lines: lines)
    total = sum(int(line.rsplit(" ", 1)[1]) for line in folded.strip().splitlines())
    assert total == alive, (view.__name__, total, alive)
assert "activations" in viz.memory(snapshot, format_flamegraph=lambda lines: lines)

# It checks itself that free and allocated bytes add up to each segment.
summary = viz.segsum(snapshot)
assert f"segments: {len(snapshot['segments'])}\n" in summary, summary

# Each allocation of the trace lies in a segment.
events = viz.trace(snapshot)
assert len(re.findall(r"^\w+ = seg_\d+\[\d+:", events, re.MULTILINE)) == len(blocks), events[:2000]
assert "MEM[" not in events

# The two pages: what is embedded in them is the snapshot, whole.
for page in (viz.trace_plot(snapshot), viz.segment_plot(snapshot)):
    found = re.search(r"\[\{\"name\": \"snapshot.pickle\", \"base64\": \"([^\"]+)\"\}\]", page)
    embedded = base64.b64decode(found.group(1))
    assert pickle.loads(embedded) == snapshot
    json.loads(found.group(0))
print(f"{len(blocks)} blocks of {alive} bytes in {len(snapshot['segments'])} segments")
