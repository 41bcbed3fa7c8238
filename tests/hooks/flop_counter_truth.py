#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks torch.utils.flop_counter about a list of calls and writes calls and answers as JSON.

    flop_counter_truth.py <output.json>

work_rules_test.cpp makes the same calls from C++ and expects the same numbers. A case is either run
(FlopCounterMode around the operator, then around backward of the sum of its results) or, where no
CPU kernel exists, given to the registry's formula with tensors on the meta device.
"""
import itertools
import json
import sys

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

cases = []


def t(*shape, grad=True, dtype="float"):
    return {"tensor": list(shape), "grad": grad, "dtype": dtype}


def index(*shape, high):
    return {"tensor": list(shape), "grad": False, "dtype": "long", "high": high}


def run(operator, *arguments, note=""):
    cases.append({"mode": "run", "operator": operator, "arguments": list(arguments), "note": note})


def formula(operator, *arguments, out=None, note=""):
    cases.append({"mode": "formula", "operator": operator, "arguments": list(arguments),
                  "out": out, "note": note})


def make(argument, device="cpu"):
    if isinstance(argument, dict) and "tensor" in argument:
        shape = argument["tensor"]
        if argument["dtype"] == "long":
            return torch.zeros(shape, dtype=torch.long, device=device)
        dtype = getattr(torch, argument["dtype"])
        return torch.rand(shape, device=device).to(dtype).requires_grad_(argument["grad"])
    if isinstance(argument, dict):
        return [make(a, device) for a in argument["list"]]
    return argument


def overload_of(operator):
    name, _, overload = operator.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, name), overload or "default")


def call(overload, arguments):
    declared = overload._schema.arguments
    positional = [a for a, d in zip(arguments, declared) if not d.kwarg_only]
    named = {d.name: a for a, d in zip(arguments, declared) if d.kwarg_only}
    return overload(*positional, **named)


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for v in value for t in tensors_of(v)] if isinstance(value, (list, tuple)) else []


def answer(case):
    overload = overload_of(case["operator"])
    if case["mode"] == "formula":
        arguments = [make(a, "meta") for a in case["arguments"]]
        out = case["out"]
        out = [torch.empty(o, device="meta") for o in out] if out and isinstance(out[0], list) \
            else torch.empty(out or [], device="meta")
        packet = getattr(torch.ops.aten, case["operator"].removeprefix("aten::"))
        case["forward"] = case["total"] = flop_registry[packet](*arguments, out_val=out)
        return
    arguments = [make(a) for a in case["arguments"]]
    with FlopCounterMode(display=False) as counter:
        results = call(overload, arguments)
    case["forward"] = case["total"] = counter.get_total_flops()
    used = [r for r in tensors_of(results) if r.requires_grad]
    if used:
        with FlopCounterMode(display=False) as counter:
            sum(r.sum() for r in used).backward()
        case["total"] += counter.get_total_flops()


# --- Matrix products and what decomposes into them ---
run("aten::mm", t(3, 4), t(4, 5))
run("aten::mm", t(3, 4, grad=False), t(4, 5))
run("aten::mm.out", t(3, 4, grad=False), t(4, 5, grad=False), t(3, 5, grad=False))
run("aten::mm", t(4, 4, grad=False, dtype="bfloat16"), t(4, 4, dtype="bfloat16"))
run("aten::addmm", t(5), t(3, 4), t(4, 5))
run("aten::addmm", t(3, 5, grad=False), t(3, 4), t(4, 5, grad=False), 2, 3)
run("aten::addmm_", t(3, 5, grad=False), t(3, 4, grad=False), t(4, 5, grad=False))
run("aten::_addmm_activation", t(5, grad=False), t(3, 4, grad=False), t(4, 5, grad=False))
run("aten::bmm", t(2, 3, 4), t(2, 4, 5))
run("aten::baddbmm", t(2, 3, 5), t(2, 3, 4), t(2, 4, 5))
run("aten::addbmm", t(3, 5), t(2, 3, 4), t(2, 4, 5))
run("aten::mv", t(3, 4), t(4))
run("aten::addmv", t(3), t(3, 4), t(4))
run("aten::dot", t(7), t(7))
run("aten::addr", t(3, 4), t(3), t(4))
run("aten::ger", t(3), t(4))
run("aten::linear", t(3, 5), t(6, 5), t(6))
run("aten::linear", t(2, 3, 5), t(6, 5), t(6))
run("aten::linear", t(2, 3, 5), t(6, 5))
run("aten::linear", t(2, 3, 5, grad=False), t(6, 5), t(6))
for left, right in [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((4,), (4, 5)),
                    ((3, 4), (4,)), ((2, 1, 3, 4), (5, 4, 6)), ((4,), (4,)), ((2, 3, 4), (4,))]:
    run("aten::matmul", t(*left), t(*right))
run("aten::einsum", "bij,bjk->bik", {"list": [t(2, 3, 4), t(2, 4, 5)]})
run("aten::einsum", "bhqd,bhkd->bhqk", {"list": [t(2, 3, 4, 5), t(2, 3, 6, 5)]})
run("aten::tensordot", t(3, 4, 5), t(4, 5, 6), [1, 2], [0, 1])
run("aten::bilinear", t(3, 4), t(3, 4), t(5, 4, 4), t(5))
run("aten::cdist", t(30, 4), t(30, 4))
run("aten::linalg_multi_dot", {"list": [t(3, 4), t(4, 5), t(5, 6)]})
run("aten::linalg_matrix_exp", t(4, 4, grad=False))
run("aten::linalg_pinv", t(4, 3), 1e-15)
run("aten::linalg_solve", t(4, 4), t(4, 2))
run("aten::cov", t(3, 8))
run("aten::chain_matmul", {"list": [t(3, 4), t(4, 5)]})
run("aten::outer", t(3), t(4))
run("aten::embedding_bag", t(10, 4), index(6, high=10), index(2, high=1))
run("aten::_euclidean_dist", t(5, 4), t(6, 4))

# --- Convolutions ---
for dimensions in (1, 2, 3):
    for groups, transposed, bias, x_grad, w_grad in itertools.product(
            (1, 2), (False, True), (False, True), (False, True), (False, True)):
        spatial = [7, 8, 6][:dimensions]
        w = [4, 6 // groups] if transposed else [6, 4 // groups]
        run("aten::convolution", t(2, 4, *spatial, grad=x_grad), t(*w, *[3, 2, 3][:dimensions],
            grad=w_grad), t(6) if bias else None, [2, 1, 2][:dimensions], [1, 0, 1][:dimensions],
            [1, 2, 1][:dimensions], transposed, [1, 0, 1][:dimensions] if transposed else
            [0] * dimensions, groups)
run("aten::conv1d.padding", t(2, 4, 8), t(6, 4, 3), None, [1], "same")
run("aten::conv2d", t(2, 4, 8, 8), t(6, 4, 3, 3))
run("aten::conv2d", t(4, 8, 8), t(6, 4, 3, 3), note="without a batch")
run("aten::conv2d", t(2, 4, 8, 8), t(4, 1, 3, 3), t(4), [1], [1], [1], 4, note="depthwise")
run("aten::conv2d", t(2, 4, 8, 8, grad=False), t(6, 4, 3, 3))
run("aten::conv2d", t(2, 4, 8, 8, dtype="double"), t(6, 4, 3, 3, dtype="double"))
run("aten::conv2d", t(2, 4, 9, 8, grad=False), t(6, 4, 3, 3, grad=False), None, [2], [1], [2])
run("aten::conv3d", t(1, 2, 5, 6, 7, dtype="double"), t(3, 2, 2, 2, 2, dtype="double"))
run("aten::conv_transpose2d.input", t(2, 4, 8, 8), t(4, 6, 3, 3), t(6), [2], [1], [1])
run("aten::conv_tbc", t(8, 2, 4), t(3, 4, 5), t(5))
run("aten::slow_conv_dilated2d", t(2, 4, 8, 8, grad=False), t(6, 4, 3, 3, grad=False), [3, 3])
run("aten::mkldnn_convolution", t(2, 4, 8, 8, grad=False), t(6, 4, 3, 3, grad=False), None,
    [1, 1], [1, 1], [1, 1], 1)
for mask in itertools.product((False, True), repeat=3):
    for transposed, w in ((False, (6, 2, 3, 3)), (True, (4, 3, 3, 3))):
        out = [2, 6, 10, 9] if transposed else [2, 6, 6, 5]
        run("aten::convolution_backward", t(*out, grad=False), t(2, 4, 8, 7, grad=False),
            t(*w, grad=False), [6], [1, 1], [0, 0], [1, 1], transposed, [0, 0], 2, list(mask))

# --- Attention, recurrent layers, the encoder's fast path: 0 on a CPU ---
q, kv = t(2, 4, 16, 8), t(2, 2, 16, 8)
run("aten::scaled_dot_product_attention", q, q, q)
run("aten::scaled_dot_product_attention", q, q, q, None, 0.0, True)
run("aten::scaled_dot_product_attention", q, q, q, t(16, 16, grad=False))
run("aten::scaled_dot_product_attention", q, q, q, None, 0.5, note="dropout: by bmm")
run("aten::scaled_dot_product_attention", q, kv, kv, None, 0.0, False, None, True)
run("aten::_scaled_dot_product_attention_math", q, q, q)
lstm = [t(24, 4), t(24, 6), t(24), t(24)]
run("aten::lstm.input", t(3, 2, 4), {"list": [t(1, 2, 6), t(1, 2, 6)]}, {"list": lstm}, True, 1,
    0.0, True, False, False)
lstm = [t(24, 4, dtype="double"), t(24, 6, dtype="double"), t(24, dtype="double"),
        t(24, dtype="double")]
run("aten::lstm.input", t(3, 2, 4, dtype="double"), {"list": [t(1, 2, 6, dtype="double")] * 2},
    {"list": lstm}, True, 1, 0.0, True, False, False, note="no oneDNN: by addmm")
gru = [t(18, 4), t(18, 6), t(18), t(18)]
run("aten::gru.input", t(3, 2, 4), t(1, 2, 6), {"list": gru}, True, 1, 0.0, True, False, False)
run("aten::rnn_tanh.input", t(3, 2, 4), t(1, 2, 6), {"list": [t(6, 4), t(6, 6), t(6), t(6)]}, True,
    1, 0.0, True, False, False)
run("aten::gru_cell", t(2, 4), t(2, 6), *gru)
plain = lambda *shape: t(*shape, grad=False)
run("aten::_transformer_encoder_layer_fwd", plain(2, 3, 8), 8, 2, plain(24, 8), plain(24),
    plain(8, 8), plain(8), False, False, 1e-5, plain(8), plain(8), plain(8), plain(8),
    plain(16, 8), plain(16), plain(8, 16), plain(8))
x = plain(2, 3, 8)
run("aten::_native_multi_head_attention", x, x, x, 8, 2, plain(24, 8), plain(24), plain(8, 8),
    plain(8))

# --- The rest of the registry, by its formulas ---
formula("aten::_scaled_mm", t(3, 4), t(4, 5), t(), t())
formula("aten::mm", t(3, 4), t(4, 5))
formula("aten::_convolution", t(2, 4, 8, 8), t(6, 4, 3, 3), None, [1, 1], [0, 0], [1, 1], False,
        [0, 0], 1, False, False, False, False, out=[2, 6, 6, 6])
formula("aten::convolution_overrideable", t(2, 4, 8, 8), t(4, 6, 3, 3), None, [1, 1], [0, 0],
        [1, 1], True, [0, 0], 1, out=[2, 6, 10, 10])
for benchmark in (False, True):
    formula("aten::cudnn_convolution", t(2, 4, 8, 8), t(6, 2, 3, 3), [1, 1], [2, 2], [1, 1], 2,
            benchmark, False, True, out=[2, 6, 4, 4])
for name in ("flash", "efficient", "cudnn"):
    forward = f"aten::_scaled_dot_product_{name}_attention"
    q, k, v = t(2, 3, 16, 8), t(2, 3, 24, 8), t(2, 3, 24, 8)
    formula(forward, q, k, v)
    formula(forward, q, k, t(2, 3, 24, 12))
    formula(f"{forward}_backward", q, q, k, v)
    formula(f"{forward}_backward", t(2, 3, 16, 12), q, k, t(2, 3, 24, 12))
offsets = {"tensor": [5], "grad": False, "dtype": "long", "high": 1}
q, k = t(2, 16, 3, 8), t(2, 16, 3, 8)
packed = t(40, 3, 8)
formula("aten::_flash_attention_forward", q, k, k, None, None, 16, 16, 0.0, False, False)
formula("aten::_flash_attention_forward", packed, packed, packed, offsets, offsets, 12, 14, 0.0,
        False, False)
formula("aten::_efficient_attention_forward", q, k, k, None, None, None, None, None, 0.0, 0)
packed4 = t(1, 40, 3, 8)
formula("aten::_efficient_attention_forward", packed4, packed4, packed4, None, offsets, offsets,
        12, 14, 0.0, 0)
formula("aten::_flash_attention_backward", q, q, k, k, q, t(2, 3, 16), None, None, 16, 16, 0.0,
        False, t(1), t(1))
formula("aten::_flash_attention_backward", packed, packed, packed, packed, packed, t(3, 40),
        offsets, offsets, 12, 14, 0.0, False, t(1), t(1))
formula("aten::_efficient_attention_backward", q, q, k, k, None, q, None, None, 16, 16,
        t(2, 3, 16), 0.0, t(1), t(1), 0, False)
formula("aten::_efficient_attention_backward", packed4, packed4, packed4, packed4, None, packed4,
        offsets, offsets, 12, 14, t(2, 3, 16), 0.0, t(1), t(1), 0, False)

for case in cases:
    try:
        answer(case)
    except Exception as error:
        raise SystemExit(f"{case}: {error}")
registry = sorted(str(packet).replace("aten.", "aten::") for packet in flop_registry)
with open(sys.argv[1], "w") as file:
    json.dump({"torch": torch.__version__, "registry": registry, "cases": cases}, file, indent=1)
print(f"{len(cases)} cases, {len(registry)} operators in the registry")
