# SPDX-License-Identifier: Apache-2.0
"""Callbacks for the trainers of other libraries. Each module imports its library, and only that:

    from torchtally.integrations.huggingface import TorchTallyCallback
    from torchtally.integrations.lightning import TorchTallyCallback
"""
