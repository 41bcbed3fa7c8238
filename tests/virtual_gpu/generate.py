#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what the fake CUDA libraries need besides our sources, for one installed PyTorch.

usage: generate.py TORCH_LIB OUTPUT INCLUDE...

Which functions: all that the libraries in TORCH_LIB import from CUDA's (their ELF symbol tables).
Which prototypes: the public headers in the INCLUDE folders. A function that one of our sources
defines is real. Every other becomes a stub: one with "Create" in its name hands out a handle, a size
that the library would compute is 0 (and counted as a question that cannot be answered), the rest
succeeds. For each library OUTPUT gets stub_NAME.c and NAME.map, the version script. These files are
made at build time and never kept.
"""
import collections
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

# Library, soname, what unversioned imports of it begin with, headers with its prototypes, our sources.
LIBRARIES = [
    ("cudart", "libcudart.so.13", r"(cuda[A-Z]|__cuda)", [], ["cudart.c", "device.c"]),
    ("cuda", "libcuda.so.1",
     r"cu(Init|Driver|Device|Ctx|Mem|Stream|Event|Func|Module|Library|Launch|Link|Get|Occupancy|"
     r"Pointer|TensorMap)\w*$", [], ["cuda_driver.c"]),
    ("cublas", "libcublas.so.13", r"cublas(?!Lt)", ["cublas_v2.h"], ["cublas.c"]),
    ("cublasLt", "libcublasLt.so.13", r"cublasLt", ["cublasLt.h"], ["cublaslt.c"]),
    ("cudnn", "libcudnn.so.9", r"cudnn", ["cudnn.h"], ["cudnn.c"]),
    ("cusparse", "libcusparse.so.12", r"cusparse(?!Lt)", ["cusparse.h"], []),
    ("cusolver", "libcusolver.so.12", r"cusolver", ["cusolverDn.h"], []),
    ("cufft", "libcufft.so.12", r"cufft", ["cufftXt.h"], []),
    ("curand", "libcurand.so.10", r"curand", [], []),
    ("cusparseLt", "libcusparseLt.so.0", r"cusparseLt", [], []),
    ("nccl", "libnccl.so.2", r"nccl", [], ["nccl.c"]),
    ("cufile", "libcufile.so.0", r"cuFile", [], []),
    ("nvshmem", "libnvshmem_host.so.3", r"nvshmem", [], []),
    ("nvrtc", "libnvrtc.so.13", r"nvrtc", [], ["nvrtc.c"]),
]
UNVERSIONED = {"nccl", "cuda", "cufile", "cusparseLt"}

# Types of cuda_fp16.h and cuda_bf16.h, which want headers of a further package.
GUARDS = ["-D__CUDA_FP16_H__", "-D__CUDA_BF16_H__"]
HALF_TYPES = ("typedef struct { unsigned short x; } __half;\n"
              "typedef struct { unsigned short x; } __nv_bfloat16;\n")
BASE_TYPES = {"int", "float", "double", "void", "char", "unsigned", "long", "short", "size_t"}


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def imports(torch_lib):
    """What Torch's libraries import, and the version nodes they name, by library."""
    wanted, nodes = collections.defaultdict(set), collections.defaultdict(set)
    for file in sorted(os.listdir(torch_lib)):
        if not re.match(r"lib.*\.so$", file):
            continue
        for line in run("nm", "-D", "--undefined-only", os.path.join(torch_lib, file)).splitlines():
            name, _, version = line.split()[-1].partition("@")
            for library, soname, begins, _, _ in LIBRARIES:
                unversioned = version in ("", "NVSHMEM") and re.match(begins, name)
                if version == soname or unversioned:
                    wanted[library].add(name)
                    if version:
                        nodes[library].add(version)
                    break
    return wanted, nodes


def defined_in(sources):
    names = set()
    for source in sources:
        with open(os.path.join(HERE, source), encoding="utf-8") as file:
            text = file.read()
        names.update(re.findall(r"^VGPU_API [^;{(]*?(\w+)\(", text, re.M))
    return names


def prototypes(headers, includes):
    """name -> (return type, [parameters]) of every CUDA function in the preprocessed headers."""
    if not headers:
        return {}
    source = HALF_TYPES + "".join(f"#include <{header}>\n" for header in headers)
    text = run("cc", "-E", "-P", "-w", "-x", "c", *GUARDS, *includes, "-", input=source)
    text = re.sub(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)", " ", text)
    text = re.sub(r"\s+", " ", text)
    found = {}
    pattern = r"(?:^|[;}])\s*((?:extern )?[A-Za-z_][\w ]*?[ \*]+)(c[uU]\w+)\s*\(([^()]*)\)\s*(?=;)"
    for match in re.finditer(pattern, text):
        returned = match.group(1).replace("extern ", "").strip()
        parameters = match.group(3).strip()
        found[match.group(2)] = (returned, [] if parameters in ("", "void") else
                                 [parameter.strip() for parameter in parameters.split(",")])
    return found


def parameter(declared, position):
    """(declaration with a name, the name, the type)."""
    match = re.match(r"^(.*?)(\w+)((?:\[[^\]]*\])*)$", declared)
    named = match and match.group(2) not in BASE_TYPES and match.group(1).strip() not in ("", "const")
    if not named:
        return f"{declared} a{position}", f"a{position}", declared
    return declared, match.group(2), match.group(1).strip()


def stub(name, prototype):
    if prototype is None:
        returned = "const char*" if name.endswith("String") else "long"
        value = '"virtual GPU"' if name.endswith("String") else "0"
        return f'VGPU_API {returned} {name}() {{ vgpu_stub("{name}"); return {value}; }}'
    returned, declared = prototype
    parameters = [parameter(d, i) for i, d in enumerate(declared)]
    body = [f'vgpu_stub("{name}");']
    if re.search(r"create", name, re.I) and "Set" not in name:
        for _, variable, kind in parameters:
            handle = r"^\w+_t\s*\*$|^cufftHandle\s*\*$|^\w+(Info|Params|Descr)_?t?\s*\*$"
            if "const" not in kind and re.match(handle, kind):
                base = kind.rstrip("*").strip()
                body.append(f"if ({variable}) *({base}*){variable} = ({base})(uintptr_t)vgpu_new_handle();")
                break
    for _, variable, kind in parameters:
        is_size = re.match(r"^(int|size_t|int64_t)\s*\*$", kind) and "DevHost" not in variable
        if is_size and re.search(r"size|lwork|workspaceInBytes|^rows$|^cols$|^nnz$", variable, re.I):
            body.append(f'if ({variable}) {{ *{variable} = 0; vgpu_unknown("{name}"); }}')
    if "*" in returned:
        body.append('return "virtual GPU";' if "char" in returned else "return 0;")
    elif returned != "void":
        body.append(f"return ({returned})0;")
    arguments = ", ".join(p[0] for p in parameters) or "void"
    return f"VGPU_API {returned} {name}({arguments}) {{ {' '.join(body)} }}"


def version_script(library, soname, nodes):
    if library == "nvshmem":
        return "NVSHMEM { global: nvshmem*; };\n"
    if library in UNVERSIONED:
        return "{ global: *; };\n"
    pattern = "cuda*; __cuda*;" if library == "cudart" else "*;"
    text = "".join(f"{node} {{ global: {pattern} }};\n" for node in sorted(nodes or {soname}))
    return text + ("VIRTUAL_GPU { global: vgpu_*; };\n" if library == "cudart" else "")


def main():
    torch_lib, output, *folders = sys.argv[1:]
    includes = [f"-I{folder}" for folder in folders]
    os.makedirs(output, exist_ok=True)
    wanted, nodes = imports(torch_lib)
    for library, soname, _, headers, sources in LIBRARIES:
        missing = sorted(wanted[library] - defined_in(sources))
        known = prototypes(headers, includes)
        lines = ["#include <stdint.h>", '#include "tests/virtual_gpu/virtual_gpu.h"']
        if headers:
            lines += [HALF_TYPES, *(f"#include <{header}>" for header in headers)]
        lines += [stub(name, known.get(name)) for name in missing]
        with open(os.path.join(output, f"stub_{library}.c"), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        with open(os.path.join(output, f"{library}.map"), "w", encoding="utf-8") as file:
            file.write(version_script(library, soname, nodes[library]))


if __name__ == "__main__":
    main()
