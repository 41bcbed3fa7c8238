# SPDX-License-Identifier: Apache-2.0
"""Puts LibTorch's CUDA half on the virtual card, in this process: for tests of the Python package.

    import virtual_gpu
    virtual_gpu.activate(folder, device="H100 80GB", memory="2GiB")   # before `import torch`
    import torch

`folder` is build/virtual_gpu; the other arguments are the settings of README.md in lower case
(count, context, event_lag, cudnn_workspace, bool, keep, log).
"""
import ctypes
import os
import sys

LIBRARIES = [
    "libcudart.so.13", "libcuda.so.1", "libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9",
    "libcusparse.so.12", "libcusolver.so.12", "libcufft.so.12", "libcurand.so.10",
    "libcusparseLt.so.0", "libnccl.so.2", "libcufile.so.0", "libnvshmem_host.so.3",
    "libnvrtc.so.13",
]


def activate(folder, **settings):
    """Loads the fake libraries; returns libcudart, for vgpu_set_total() and its like.

    Raises RuntimeError when torch is imported already: it then has the real libraries.
    """
    if "torch" in sys.modules:
        raise RuntimeError("virtual_gpu.activate() must run before torch is imported")
    for name, value in settings.items():
        os.environ["VIRTUAL_GPU_" + name.upper()] = str(value)
    os.environ.setdefault("TRITON_LIBCUDA_PATH", folder)  # what Triton links its launchers with
    loaded = [ctypes.CDLL(os.path.join(folder, library)) for library in LIBRARIES]
    cudart = loaded[0]
    cudart.vgpu_set_total.argtypes = [ctypes.c_uint64]
    for name in ("vgpu_used", "vgpu_peak_used", "vgpu_launches"):
        getattr(cudart, name).restype = ctypes.c_uint64
    return cudart
