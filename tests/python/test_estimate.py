# SPDX-License-Identifier: Apache-2.0
"""torchtally.estimate: the command line's numbers for names, configurations and modules."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import torchtally
import truth
from torchtally._program import PROGRAM

GPT2 = {
    "model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 96, "n_positions": 32,
}  # fmt: skip


def of_command_line(*arguments: str) -> dict:
    result = subprocess.run([PROGRAM, "estimate", *arguments, "--json"], capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def test_names_and_flags():
    e = torchtally.estimate(
        "llama-65b", dtype=torch.bfloat16, recipe="mixed-16", checkpoint="full", dp=8, zero=1, keep_logits=True,
        device="H100-SXM5-80GB", tokens="1.4T",
    )  # fmt: skip
    told = of_command_line(
        "llama-65b", "--dtype", "bf16", "--recipe", "mixed-16", "--checkpoint", "full", "--dp", "8", "--zero", "1",
        "--keep-logits", "--device", "H100-SXM5-80GB", "--tokens", "1.4T",
    )  # fmt: skip
    assert e.as_dict() == told
    assert e.total == told["memory"]["total"] == sum(row.bytes for row in e.rows) == sum(e.groups.values())
    assert e.peak == told["memory"]["peak"] and e.parameters == 65_285_660_672
    assert e.flops["step"] == told["flops"]["step"] and not e.not_applicable
    assert e.rows[0].key == "weights" and e.rows[0].formula and e.rows[0].source
    assert e.summary().startswith("llama-65b  (llama)") and "moments of the step" in e.summary(explain=True)
    assert e._repr_html_().startswith("<pre>llama-65b") and repr(e).startswith("<Estimate of llama-65b: total ")


def test_configurations(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GPT2))
    config = transformers.GPT2Config(**{k: v for k, v in GPT2.items() if k != "model_type"})
    told = of_command_line(str(path), "--batch", "3", "--optimizer", "sgd-momentum")
    for model in (path, str(path), GPT2, config):
        e = torchtally.estimate(model, batch=3, optimizer="sgd-momentum")
        assert e.as_dict()["memory"] == told["memory"] and e.as_dict()["flops"] == told["flops"]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_model_of_transformers_is_what_is_measured(tmp_path, kind, dtype, attention):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    if kind == "gpt2":
        config = transformers.GPT2Config(
            **{k: v for k, v in GPT2.items() if k != "model_type"}, attn_implementation=attention,
            attn_pdrop=0, resid_pdrop=0, embd_pdrop=0,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            num_hidden_layers=2, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=96, max_position_embeddings=32, attn_implementation=attention,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    model.to(dtype).train()
    optimizer = torch.optim.AdamW(model.parameters())
    e = torchtally.estimate(model, batch=2, sequence=16, optimizer=optimizer, kernels="cpu")
    assert e.as_dict()["config"]["attention"] == attention
    with torchtally.profile(recording=tmp_path / "run.tally") as p:  # nothing is told
        for number in range(2):
            ids = torch.randint(96, (2, 16), generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
    end = p.data()["steps"][-1]["devices"]["cpu"]["marks"][-1]["roles"]
    tensors = len(list(model.parameters()))
    assert e.groups["parameters"] == end["parameter"]
    assert e.groups["gradients"] == end["gradient"]
    assert e.groups["optimizer_state"] == end["optimizer_state"] - 4 * tensors  # step counters
    # The report has its closed form without being told the model.
    theory = {row["key"]: row for row in p.data()["theory"]}
    assert theory["parameter"]["closed_form"] == e.groups["parameters"]
    assert theory["peak"]["closed_form"] == e.peak
    kept = theory["activation"]
    assert kept["closed_form"] == pytest.approx(kept["measured"], rel=0.07 if attention == "sdpa" else 0.02)


def test_any_other_module():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.LSTM(4, 8), torch.nn.Linear(8, 8))
    model[2].weight.requires_grad_(False)
    model[2].to(torch.bfloat16)
    for optimizer in (
        torch.optim.AdamW(p for p in model.parameters() if p.requires_grad),
        torch.optim.SGD((p for p in model.parameters() if p.requires_grad), momentum=0.9),
    ):
        e = torchtally.estimate(model, optimizer=optimizer)
        for p in model.parameters():
            p.grad = torch.ones_like(p) if p.requires_grad else None
        optimizer.step()
        trained = [p for p in model.parameters() if p.requires_grad]
        state = [t for t in truth.tensors_in(list(optimizer.state.values())) if t.dim() > 0]
        assert e.groups["parameters"] == truth.size(model.parameters())
        assert e.groups["gradients"] == truth.size(p.grad for p in trained)
        assert e.groups["optimizer_state"] == truth.size(state)
        assert set(e.groups) == {"parameters", "gradients", "optimizer_state", "workspace"}
        assert e.peak is None and e.flops == {}
        assert set(e.not_applicable) == {"activations", "logits", "peak", "flops"}
        assert all(why.startswith("not applicable because ") for why in e.not_applicable.values())
        assert "activations: not applicable because only the shapes" in e.summary()
        assert "Sequential carries no configuration of a known architecture" in e.summary()
        assert "FLOPs of one step" not in e.summary()
        assert repr(e).endswith("peak not known>")


def test_adafactor_follows_the_shapes():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(16, 4))
    optimizer = torch.optim.Adafactor(model.parameters())
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    state = [t for t in truth.tensors_in(list(optimizer.state.values())) if t.dim() > 0]
    e = torchtally.estimate(model, optimizer="adafactor")
    assert e.groups["optimizer_state"] == truth.size(state)


def test_a_module_that_its_configuration_does_not_describe():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        num_hidden_layers=1, hidden_size=16, intermediate_size=32, num_attention_heads=2, vocab_size=96
    )
    with torch.device("meta"):
        model = transformers.BertForMaskedLM(config)
    e = torchtally.estimate(model)
    assert e.groups["parameters"] == 4 * e.parameters == 4 * sum(p.numel() for p in model.parameters())
    assert "field 'model_type' is 'bert'" in e.assumptions[-1]
    config = transformers.GPT2Config(**{k: v for k, v in GPT2.items() if k != "model_type"})
    e = torchtally.estimate(transformers.GPT2ForSequenceClassification(config))
    assert "stands for a language model of" in e.assumptions[-1] and e.peak is None
    model = transformers.GPT2LMHeadModel(config)
    model.transformer.wte.weight.requires_grad_(False)
    e = torchtally.estimate(model)
    assert "3,072 of the" in e.assumptions[-1] and "are frozen" in e.assumptions[-1]
    assert e.groups["gradients"] == e.groups["parameters"] - 4 * 3072


def test_lora_by_peft():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = transformers.GPT2Config(**{k: v for k, v in GPT2.items() if k != "model_type"})
    model = peft.get_peft_model(
        transformers.GPT2LMHeadModel(config), peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    )
    e = torchtally.estimate(model, optimizer="adamw")
    trainable = truth.size(p for p in model.parameters() if p.requires_grad)
    assert e.groups["gradients"] == trainable and e.groups["optimizer_state"] == 2 * trainable


def test_without_sense():
    model = torch.nn.Linear(4, 4)
    with pytest.raises(ValueError, match="no model is called 'lama-65b'; nearest: llama-65b"):
        torchtally.estimate("lama-65b")
    with pytest.raises(ValueError, match="--batch must be at least 1, it is 0"):
        torchtally.estimate(model, batch=0)
    with pytest.raises(ValueError, match="--barch"):
        torchtally.estimate("gpt2", barch=2)
    with pytest.raises(ValueError, match="batch is one value here"):
        torchtally.estimate("gpt2", batch=[1, 2])
    with pytest.raises(ValueError, match="holds a comma"):
        torchtally.estimate("gpt2", batch="1,2")
    with pytest.raises(ValueError, match="field 'n_embd' is missing"):
        torchtally.estimate({"model_type": "gpt2", "vocab_size": 4})
    with pytest.raises(ValueError, match="--optimizer: 'lbfgs' is none of"):
        torchtally.estimate(model, optimizer=torch.optim.LBFGS(model.parameters()))
    with pytest.raises(ValueError, match="ReLU has no parameters"):
        torchtally.estimate(torch.nn.ReLU())
    with pytest.raises(ValueError, match="call the module once"):
        torchtally.estimate(torch.nn.LazyLinear(4))
    with pytest.raises(ValueError, match="--tp, --cp, --pp and --ep need"):
        torchtally.estimate(model, tp=2)
    with pytest.raises(ValueError, match="exclude each other"):
        torchtally.estimate(model, layers=2, d_model=8, heads=2, vocab=4, context=4)
    with pytest.raises(TypeError, match="int is no model"):
        torchtally.estimate(3)


def test_needs_no_torch():
    code = "import sys, torchtally; torchtally.estimate('gpt2'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
