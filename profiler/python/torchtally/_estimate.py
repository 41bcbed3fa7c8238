# SPDX-License-Identifier: Apache-2.0
"""What theory says of a training step, without a run: the numbers of ``torchtally estimate``."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Union

from ._config import config_text, find_config, is_config
from ._program import ask
from ._units import format_bytes

if TYPE_CHECKING:
    import torch

# Optimizers of which the estimator has a row under their own name.
_OWN_ROWS = {
    "NAdam", "RAdam", "Adamax", "Adadelta", "Rprop", "ASGD", "Adafactor", "Lion", "Adam8bit", "AdamW8bit",
}  # fmt: skip

Flag = Union[int, float, str, bool, None]


@dataclasses.dataclass(frozen=True)
class EstimateRow:
    """One term of the memory of the worst rank."""

    key: str  # "weights", "attention.softmax", ...
    title: str
    group: str  # parameters, gradients, optimizer_state, activations, logits, workspace
    bytes: int
    formula: str
    source: str  # where the formula was published or measured


@dataclasses.dataclass(frozen=True)
class _Question:
    model: str  # a name, a path, or "-" for what is `given`
    flags: list[str]
    given: str | None = None

    def text(self, *how: str) -> str:
        return ask("estimate", *self.flags, *how, "--", self.model, given=self.given)

    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.text("--json"))
        return answer


class Estimate:
    """The answer of `torchtally.estimate`. All sizes are exact bytes, FLOPs are exact counts."""

    def __init__(self, question: _Question, answer: dict[str, Any], notes: list[str]) -> None:
        self._question = question
        self._answer = answer
        memory = answer["memory"]
        #: What the model is called.
        self.name: str = answer["model"]["name"]
        #: How many parameters it has, and how many one token passes (a mixture of experts has more).
        self.parameters: int = answer["model"]["parameters"]
        self.active_parameters: int = answer["model"]["active_parameters"]
        #: The terms of the memory; those of 0 bytes are left out.
        self.rows: list[EstimateRow] = [EstimateRow(**row) for row in memory["rows"]]
        #: Bytes by group: parameters, gradients, optimizer_state, activations, logits, workspace.
        self.groups: dict[str, int] = {
            group: memory[group]
            for group in (
                "parameters", "gradients", "optimizer_state", "activations", "logits", "workspace",
            )
            if group not in answer["not_applicable"]
        }
        #: The sum of all rows, as if all were alive at once.
        self.total: int = memory["total"]
        #: The largest real moment of a step; None where activations are not known.
        self.peak: int | None = None if "peak" in answer["not_applicable"] else memory["peak"]
        #: FLOPs of a step by phase: forward, backward, recompute, optimizer, step; {} if not known.
        self.flops: dict[str, int] = (
            {}
            if "flops" in answer["not_applicable"]
            else {k: answer["flops"][k] for k in ("forward", "backward", "recompute", "optimizer", "step")}
        )
        #: What cannot be estimated, and why: "not applicable because ...".
        self.not_applicable: dict[str, str] = answer["not_applicable"]
        #: What was assumed, a sentence each.
        self.assumptions: list[str] = answer["assumptions"] + notes
        self._notes = notes

    def summary(self, explain: bool = False) -> str:
        """As ``torchtally estimate`` prints it; `explain`: every row with its formula and source."""
        text = self._question.text(*(["--explain"] if explain else []))
        return text + "".join(f"  - {note}\n" for note in self._notes)

    def as_dict(self) -> dict[str, Any]:
        """Everything, with the keys of ``torchtally estimate --json``."""
        return {**self._answer, "assumptions": self.assumptions}

    def __repr__(self) -> str:
        peak = "not known" if self.peak is None else format_bytes(self.peak)
        return f"<Estimate of {self.name}: total {format_bytes(self.total)}, peak {peak}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.summary())}</pre>"


def _flags(values: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, (list, tuple, set)):
            raise ValueError(f"{name} is one value here; ask once for each (torchtally estimate takes lists)")
        text = ("no", "yes")[value] if isinstance(value, bool) else str(value)
        if "," in text:
            raise ValueError(f"{name}={text!r} holds a comma; ask once for each value")
        flags.append(f"--{name.replace('_', '-')}={text}")
    return flags


def _dtype_name(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(name, name)


def _optimizer_name(optimizer: torch.optim.Optimizer) -> str:
    from ._optimizers import recipe

    kind = type(optimizer).__name__
    if kind in _OWN_ROWS:
        return kind.lower()
    name = recipe(optimizer)
    if not name:
        raise ValueError(
            f"the state of {kind} is not known; name one that has the same "
            "(torchtally models --optimizers)"
        )
    return name


def _is_module(value: Any) -> bool:
    torch = sys.modules.get("torch")  # who has a module has imported it
    return torch is not None and isinstance(value, torch.nn.Module)


def _shapes_of(module: torch.nn.Module, own_types: bool) -> str:
    from torch.nn.parameter import is_lazy

    entries = []
    for name, parameter in module.named_parameters():  # tied ones once
        if is_lazy(parameter):
            raise ValueError(f"the shape of parameter {name} is not known yet: call the module once")
        entry: dict[str, Any] = {"shape": list(parameter.shape), "trainable": parameter.requires_grad}
        if own_types:
            entry["element_bytes"] = parameter.element_size()
        entries.append(entry)
    if not entries:
        raise ValueError(f"{type(module).__name__} has no parameters: there is nothing to estimate")
    return json.dumps({"name": type(module).__name__, "parameters": entries})


def _of_configuration(module: torch.nn.Module, flags: dict[str, Any]) -> tuple[Estimate | None, str]:
    """By the configuration that a module carries; or None, and why that does not describe it."""
    kind = type(module).__name__
    config = find_config(module)
    if config is None:
        return None, f"{kind} carries no configuration of a known architecture"
    parameters = list(module.parameters())
    types = {_dtype_name(parameter.dtype) for parameter in parameters}
    if len(types) > 1:
        return None, f"the parameters of {kind} are of several types: {', '.join(sorted(types))}"
    count = sum(parameter.numel() for parameter in parameters)
    frozen = sum(parameter.numel() for parameter in parameters if not parameter.requires_grad)
    if frozen and flags["recipe"] not in ("lora", "qlora", "inference"):
        return None, f"{frozen:,} of the {count:,} parameters of {kind} are frozen"
    known = dict(flags)
    if known.get("attention") is None:
        names = {"eager": "eager", "sdpa": "sdpa", "flash_attention_2": "flash"}
        known["attention"] = names.get(str(getattr(config, "_attn_implementation", "")))
    if known["dtype"] is None and known["recipe"] is None:
        known["dtype"] = types.pop()
    question = _Question("-", _flags(known), config_text(config))
    try:
        answer = question.answer()
    except ValueError as error:
        if not str(error).startswith("the configuration: "):
            raise  # a flag has no sense
        return None, f"the configuration that {kind} carries cannot be used: {error}"
    described = answer["model"]["parameters"]
    if described != count:
        return None, (
            f"{kind} has {count:,} parameters, and its configuration stands for a language model of {described:,}"
        )
    return Estimate(question, answer, []), ""


def _of_module(module: torch.nn.Module, flags: dict[str, Any]) -> Estimate:
    estimate, why_not = _of_configuration(module, flags)
    if estimate is not None:
        return estimate
    own_types = flags["dtype"] is None and flags["recipe"] is None
    question = _Question("-", _flags(flags), _shapes_of(module, own_types))
    return Estimate(question, question.answer(), [f"only the shapes of the parameters are used: {why_not}"])


def estimate(
    model: Any,
    *,
    batch: int | None = None,
    sequence: int | None = None,
    accumulate: int | None = None,
    dtype: str | torch.dtype | None = None,
    optimizer: str | torch.optim.Optimizer | None = None,
    recipe: str | None = None,
    checkpoint: str | None = None,
    attention: str | None = None,
    dropout: float | None = None,
    dp: int | None = None,
    zero: int | None = None,
    tp: int | None = None,
    pp: int | None = None,
    device: str | None = None,
    **flags: Flag,
) -> Estimate:
    """Memory, FLOPs, devices and time of a training step by theory; nothing is run.

    >>> torchtally.estimate("llama-65b", dtype="bf16", recipe="mixed-16", dp=8, zero=1).total
    >>> print(torchtally.estimate(AutoConfig.from_pretrained("gpt2"), batch=8).summary())
    >>> torchtally.estimate(model, optimizer=optimizer).groups["optimizer_state"]

    model: one of
      - a name of ``torchtally models``, or the path of a config.json or of its folder;
      - a configuration of Hugging Face transformers, or a dict of the same fields;
      - a torch.nn.Module, on any device (also "meta"). One of transformers is estimated by the
        configuration that it carries, if that describes all of it; its type and attention are read
        off it. Of any other module parameters, gradients and optimizer state are exact, and
        `not_applicable` says why the rest is not: what a forward pass keeps needs a run.
    batch: sequences of one micro-batch of one data-parallel rank (1). sequence: tokens of each (the
    model's context). accumulate: micro-batches of a step (1).
    dtype: fp32, tf32, bf16, fp16, amp-bf16, amp-fp16, or a torch.dtype. optimizer: a name of
    ``torchtally models --optimizers`` or an optimizer of torch.optim ("adamw"). recipe: auto, fp32,
    autocast, pure-16, mixed-16, mixed-18, mixed-20, lora, qlora, inference. checkpoint: none,
    selective, full, every:K, sqrt. attention: eager, sdpa, flash. dp, zero, tp, pp: ranks. device: a
    name of ``torchtally models --devices``. flags: any other flag of ``torchtally estimate --help``
    with `_` for `-` (``keep_logits=True``, ``lora_rank=8``, ``tokens="1.4T"``).

    The numbers are those of ``torchtally estimate``; docs/estimates.md has formulas and sources.
    Raises ValueError with a sentence for what has no sense, TypeError for what is no model.
    """
    given: dict[str, Any] = {
        "batch": batch, "sequence": sequence, "accumulate": accumulate, "recipe": recipe,
        "checkpoint": checkpoint, "attention": attention, "dropout": dropout,
        "dp": dp, "zero": zero, "tp": tp, "pp": pp, "device": device, **flags,
    }  # fmt: skip
    given["dtype"] = None if dtype is None else _dtype_name(dtype)
    given["optimizer"] = (
        optimizer if optimizer is None or isinstance(optimizer, str) else _optimizer_name(optimizer)
    )
    if _is_module(model):
        return _of_module(model, given)
    if isinstance(model, (str, os.PathLike)):
        question = _Question(os.fspath(model), _flags(given))
    elif is_config(model):
        question = _Question("-", _flags(given), config_text(model))
    elif isinstance(model, dict):
        question = _Question("-", _flags(given), json.dumps(model))
    else:
        raise TypeError(
            f"{type(model).__name__} is no model: give a name, a path, a configuration or a torch.nn.Module"
        )
    return Estimate(question, question.answer(), [])
