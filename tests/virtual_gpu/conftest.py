# SPDX-License-Identifier: Apache-2.0
"""Every test of this folder runs on the virtual card, whose libraries are loaded before torch.

VIRTUAL_GPU_FOLDER is build/virtual_gpu; the other settings of the card are those of README.md."""
import os

import pytest
import virtual_gpu

if "VIRTUAL_GPU_FOLDER" not in os.environ:
    raise pytest.UsageError("VIRTUAL_GPU_FOLDER must name the folder of the virtual card's libraries")
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of processes
CARD = virtual_gpu.activate(os.environ["VIRTUAL_GPU_FOLDER"])


@pytest.fixture
def card():
    """libcudart of the virtual card; its memory is what it was again after the test."""
    import torch

    total = torch.cuda.mem_get_info()[1]
    yield CARD
    CARD.vgpu_set_total(total)
