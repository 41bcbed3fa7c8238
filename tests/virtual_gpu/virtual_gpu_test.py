# SPDX-License-Identifier: Apache-2.0
"""The virtual card under Python: virtual_gpu_test.py FOLDER. A training step's requested bytes are those
of its tensors and of cuBLAS' workspaces, to the byte; out of memory comes where the card ends."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import virtual_gpu  # noqa: E402

cudart = virtual_gpu.activate(sys.argv[1], device="A100 40GB", memory="2GiB")
import torch  # noqa: E402


def stat(name):
    return torch.cuda.memory_stats()[name + ".all.current"]


def nbytes(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def training_step():
    before = stat("requested_bytes")
    net = torch.nn.Sequential(torch.nn.Linear(100, 400), torch.nn.GELU(), torch.nn.Linear(400, 100)).cuda()
    optimizer = torch.optim.AdamW(net.parameters())
    x = torch.randn(64, 100, device="cuda")
    for _ in range(3):
        net(x).sum().backward()
        optimizer.step()
    state = [t for s in optimizer.state.values() for t in s.values() if t.is_cuda]
    tensors = nbytes(net.parameters()) + nbytes(p.grad for p in net.parameters()) + nbytes(state) + nbytes([x])
    requested = stat("requested_bytes") - before
    torch._C._cuda_clearCublasWorkspaces()
    workspaces = requested - (stat("requested_bytes") - before)
    assert workspaces > 0, workspaces
    assert requested == tensors + workspaces, (requested, tensors, workspaces)


def out_of_memory():
    torch.cuda.empty_cache()
    held = []
    try:
        while True:
            held.append(torch.empty(100 << 20, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        pass
    assert len(held) == 20, len(held)
    assert torch.cuda.memory_stats()["num_ooms"] == 1


torch.cuda.init()
assert "A100" in torch.cuda.get_device_name(0)
training_step()
out_of_memory()
assert cudart.vgpu_launches() > 0
print("the virtual card works under Python")
