#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes save_rules_table.inc from the derivative formulas that a torch wheel ships.

    save_rules_table.py <torch folder>            writes the table
    save_rules_table.py <torch folder> --check    compares, and compares with Functions.h

The formulas are torchgen/packaged/autograd/derivatives.yaml; which operand is kept when follows
torchgen's own rule (guard_for in gen_variable_type.py), restated in guard() below. --check always
holds the table against the SavedVariable members of torch/csrc/autograd/generated/Functions.h, and
against a fresh table where torchgen and PyYAML can be imported.
"""
import argparse
import pathlib
import re
import sys

ORDER = lambda save: (("in", "copy", "out").index(save[0]), save[1])
TABLE = pathlib.Path(__file__).with_suffix(".inc")
HEADER = """\
// SPDX-License-Identifier: Apache-2.0
// Made by save_rules_table.py from the derivative formulas of torch {version}; do not edit. Long
// because it is a table: one row an overload that can make a node, sorted by name.
// clang-format off
"""


def arguments_of(function):
    return list(function.func.arguments.flat_non_out)


def kind(argument):
    """One letter of SaveRow::kinds."""
    text = str(argument.type)
    if text.startswith("Tensor") and "[" in text:
        return "L"
    return {"Tensor": "T", "Tensor?": "?"}.get(text, ".")


def guard(saved, info, with_derivatives, positions):
    """Bits of the inputs of which one must require grad for the node to keep `saved`."""
    from torchgen.api.types import BaseCType, tensorT

    if any(kind(a) == "L" for a in with_derivatives) or "backward" in info.name:
        return 0
    if len(with_derivatives) <= 1 or saved.nctype.type != BaseCType(tensorT):
        return 0
    used_in = [d for d in info.derivatives if saved in d.saved_inputs]
    if len(used_in) != 1:
        return 0
    names = used_in[0].var_names
    if len(names) == 1:
        return 1 << positions[names[0]]
    match = re.search(rf"wrap_opt_if\({saved.nctype.name},(.*?)\)", used_in[0].formula)
    if not match:
        return 0
    condition = match.group(1)
    assert "&&" not in condition and "!" not in condition, condition
    edges = [int(n) for n in re.findall(r"grad_input_mask\[(\d+)\]", condition)]
    return sum(1 << positions[with_derivatives[n].name] for n in edges)


def row_of(function, info):
    """(name, node, kinds, differentiable, saves) or None where the table cannot say it."""
    from torchgen.api.types import (
        BaseCType, ListCType, OptionalCType, VectorCType, iTensorListRefT, tensorListT, tensorT)
    from torchgen.model import SchemaKind

    tensors = (BaseCType(tensorT), OptionalCType(BaseCType(tensorT)))
    lists = (BaseCType(tensorListT), BaseCType(iTensorListRefT), VectorCType(BaseCType(tensorT)),
             ListCType(OptionalCType(BaseCType(tensorT))))
    name = str(function.func.name.name)
    inplace = function.func.kind() == SchemaKind.inplace
    if inplace and name.startswith("_foreach"):
        return None  # one node a tensor of the list
    arguments = arguments_of(function)
    positions = {a.name: i for i, a in enumerate(arguments)}
    derived = {v for d in info.derivatives for v in d.var_names}
    with_derivatives = [a for a in arguments if a.name in derived]
    returns = [r.name for r in function.func.returns]
    outputs = {"result": 0} | {f"result{i}": i for i in range(len(returns))}
    outputs |= {r: i for i, r in enumerate(returns) if r}

    saves = []
    for saved in info.all_saved_inputs:
        if saved.nctype.type not in tensors + lists:
            continue
        source = "copy" if inplace and saved.nctype.name == "self" else "in"
        mask = guard(saved, info, with_derivatives, positions)
        saves.append((source, positions[str(saved.nctype.name)], mask))
    for saved in info.all_saved_outputs:
        if saved.nctype.type in tensors + lists:
            saves.append(("out", outputs[str(saved.nctype.name)], 0))
    kinds = "".join(kind(a) for a in arguments)
    differentiable = sum(1 << positions[a.name] for a in with_derivatives)
    return name, info.op, kinds, differentiable, tuple(sorted(saves, key=ORDER))


def bits(mask):
    return "needs(" + ", ".join(str(i) for i in range(32) if mask >> i & 1) + ")"


def written(row):
    name, node, kinds, differentiable, saves = row
    items = ", ".join(f"{s}({i}, {bits(m)})" if m else f"{s}({i})" for s, i, m in saves)
    return (f'{{"{name}", "{node}", "{kinds}", {bits(differentiable)}, {{{items}}}, '
            f'{len(saves)}}},\n')


def make_table(torch_folder):
    sys.path.insert(0, str(torch_folder.parent))
    import torchgen
    from torchgen.api.autograd import match_differentiability_info
    from torchgen.gen import parse_native_yaml
    from torchgen.model import DispatchKey, SchemaKind
    from torchgen.packaged.autograd.load_derivatives import load_derivatives

    root = pathlib.Path(torchgen.__file__).parent / "packaged"
    native = str(root / "ATen/native/native_functions.yaml")
    tags = str(root / "ATen/native/tags.yaml")
    infos, _ = load_derivatives(str(root / "autograd/derivatives.yaml"), native, tags)
    yaml = parse_native_yaml(native, tags)
    functions, cuda = yaml.native_functions, yaml.backend_indices[DispatchKey.CUDA]
    rows = set()
    for function in match_differentiability_info(functions, infos):
        info = (function.info or {}).get("Default")
        if info is None or not info.has_derivatives:
            continue
        if function.func.func.kind() in (SchemaKind.out, SchemaKind.functional) and \
                function.func.func.arguments.out:
            continue  # out= does not support autograd
        composite = function.func.has_composite_implicit_autograd_kernel
        if composite and not cuda.has_kernel(function.func):
            continue  # the formula is for MPS or nested tensors; elsewhere its parts save
        row = row_of(function.func, info)
        if row:
            rows.add(row)
    # Written by hand in VariableTypeManual.cpp: a copy keeps no tensor.
    rows.add(("copy_", "CopyBackwards", "TT.", 3, ()))
    # The same inputs may mean two overloads only if they keep the same.
    seen = {}
    for row in sorted(rows):
        other = seen.setdefault((row[0], row[2]), row)
        if other[3:] != row[3:]:
            print(f"{row[0]}({row[2]}): {other[3:]} or {row[3:]}?", file=sys.stderr)
    version = re.search(r"'([\d.]+)", (torch_folder / "version.py").read_text()).group(1)
    return HEADER.format(version=version) + "".join(written(row) for row in sorted(seen.values()))


def saved_members(torch_folder):
    """Node -> how many SavedVariable members (lists count once) Functions.h declares."""
    text = (torch_folder / "include/torch/csrc/autograd/generated/Functions.h").read_text()
    members = {}
    for name, body in re.findall(r"struct TORCH_API (\w+) : public \w+ \{(.*?)\n\};", text, re.S):
        members[name] = len(re.findall(
            r"^  (?:std::vector<)?SavedVariable>? \w+;", body, re.M))
    return members


def check_members(torch_folder):
    members = saved_members(torch_folder)
    wrong = []
    handwritten = {"CopyBackwards"}
    pattern = re.compile(r'^\{"(\w+)", "(\w+)".*?, (\d+)\},$')
    rows = [m.groups() for m in map(pattern.match, TABLE.read_text().splitlines()) if m]
    for name, node, count in rows:
        if node in handwritten:
            continue
        if node not in members:
            wrong.append(f"{name}: {node} is not in Functions.h")
        elif members[node] != int(count):
            wrong.append(f"{name}: {node} has {members[node]} saved tensors, the table {count}")
    table_nodes = {node for _, node, _ in rows}
    # In-place _foreach_* make a node a tensor; other dispatch keys than Autograd have own formulas;
    # the last four are compositions but for MPS and nested tensors.
    other = re.compile(r"Foreach|\w*AutogradNestedTensor|\w*AutogradCUDA|"
                       r"(Chunk|Linear|Matmul|MaxPool2D)Backward0$")
    for node, count in sorted(members.items()):
        if count and node not in table_nodes and not other.match(node):
            wrong.append(f"{node} saves {count} tensors and no row of the table makes it")
    return rows, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("torch", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not options.check:
        TABLE.write_text(make_table(options.torch))
        return 0
    rows, wrong = check_members(options.torch)
    print(f"{len(rows)} rows held against Functions.h")
    try:
        fresh = make_table(options.torch)
    except ImportError as error:
        print(f"not compared with derivatives.yaml: {error}")
    else:
        old, new = TABLE.read_text().splitlines(), fresh.splitlines()
        wrong += [f"only in the table: {line}" for line in old if line not in new]
        wrong += [f"missing in the table: {line}" for line in new if line not in old]
        print("compared with derivatives.yaml")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
