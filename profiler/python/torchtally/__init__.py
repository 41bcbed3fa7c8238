# SPDX-License-Identifier: Apache-2.0
"""TorchTally: where every byte and every FLOP of a training step goes.

    import torchtally
    with torchtally.profile(model, optimizer, report="report.html") as p:
        train()
    print(p.summary())
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._build import VERSION as __version__

if TYPE_CHECKING:
    from ._budget import assert_budget
    from ._estimate import Estimate, EstimateRow, estimate
    from ._library import TallyError, TorchVersionError
    from ._profile import Profile, profile
    from ._verdicts import assert_verdicts

# Loaded when they are first asked for: the command line needs no torch.
_WHERE = {
    "TallyError": "_library",
    "TorchVersionError": "_library",
    "Profile": "_profile",
    "profile": "_profile",
    "assert_budget": "_budget",
    "assert_verdicts": "_verdicts",
    "Estimate": "_estimate",
    "EstimateRow": "_estimate",
    "estimate": "_estimate",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'torchtally' has no attribute '{name}'")
    value = getattr(importlib.import_module("." + _WHERE[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
