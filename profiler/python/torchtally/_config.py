# SPDX-License-Identifier: Apache-2.0
"""The configuration that a Hugging Face model carries, found without importing their library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def is_config(value: Any) -> bool:
    """Whether it is a PretrainedConfig, by what it can do."""
    return isinstance(getattr(value, "model_type", None), str) and callable(
        getattr(value, "to_json_string", None)
    )


def config_text(config: Any) -> str:
    """Its config.json, with every default written out."""
    return str(config.to_json_string(use_diff=False))


def find_config(module: torch.nn.Module) -> Any:
    """That of a module or of what it wraps (DDP, a LightningModule, PEFT); None: none, or several."""
    config = getattr(module, "config", None)
    if is_config(config):
        return config
    found = [config for config in map(find_config, module.children()) if config is not None]
    return found[0] if len(found) == 1 else None
