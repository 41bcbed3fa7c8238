#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the layers: which folder includes what, one sentence for each wrong include.

Also: every source begins with its SPDX line, and one over 400 lines says why near its top
("Long because ..."). Exit code 0: all is well, 1: something is not, 2: wrong use.
"""
import argparse
import os
import pathlib
import re
import sys
import tempfile

PUBLIC = "profiler/include/torchtally"
TORCH_HEADERS = (PUBLIC + "/profiler.h", PUBLIC + "/checkpoint.h")
CORE = "profiler/core"
BOOKS = "profiler/ledger/books.h"

# Room: what of ours it may include besides itself. Files are named with their suffix. A room inside
# another one (samples/own_source) has its own line; the longest name wins.
ROOMS = {
    PUBLIC: [],
    CORE: [],
    "profiler/ledger": [CORE],
    "profiler/estimate": [CORE, PUBLIC + "/estimate.h"],
    "profiler/recording": [CORE, BOOKS],
    "profiler/analysis": [CORE, BOOKS, "profiler/recording", "profiler/estimate",
                          PUBLIC + "/estimate.h"],
    "reports": [CORE, BOOKS, "profiler/analysis"],
    "hooks/torch": [CORE],
    "hooks/cuda": [CORE],
    "hooks/cupti": [CORE],
    "hooks/preload": ["profiler/api", "profiler/session", CORE, PUBLIC],
    "profiler/session": [CORE, "profiler/ledger", "profiler/recording", "hooks"],
    "profiler/api": [CORE, "profiler/session", "profiler/recording", "profiler/analysis",
                     "hooks/torch", "reports", PUBLIC],
    "profiler/cli": [CORE, "profiler/estimate", "profiler/recording", "profiler/analysis",
                     "reports", PUBLIC],
    "profiler/python": [CORE, "profiler/api", "profiler/session", "hooks/torch", PUBLIC],
    "samples": [PUBLIC],
    "samples/own_source": [CORE, "profiler/recording", "profiler/session", PUBLIC],
    "tests": ["profiler", "hooks", "reports", "samples"],
}

# Third party that not everybody may use: how its headers begin, and where they may be included.
LIBTORCH = ("LibTorch", re.compile(r"(torch|ATen|c10|caffe2)/"),
            ["hooks", "profiler/api", "profiler/python", "samples", "tests", *TORCH_HEADERS])
SQLITE = ("SQLite", re.compile(r"sqlite3"), ["profiler/recording", "profiler/cli", "tests"])
CUDA = ("CUDA or CUPTI", re.compile(r"(cuda|cupti|nvperf|nvml)[\w/]*\.h"),
        ["hooks/cuda", "hooks/cupti", "tests"])
PYTHON = ("Python", re.compile(r"(Python\.h|pybind11/|nanobind/)"),
          ["profiler/python", "hooks/torch", "tests"])
THIRD_PARTIES = [LIBTORCH, SQLITE, CUDA, PYTHON]

INCLUDE = re.compile(r'\s*#\s*include\s*(["<])([^">]+)[">]')
STANDARD = re.compile(r"[a-z_0-9]+")
CPP = {".h", ".hpp", ".c", ".cpp", ".inc", ".cc", ".cu", ".cuh"}
SOURCES = CPP | {".py", ".cmake", ".ts", ".tsx", ".mjs", ".js", ".css", ".sh"}
SKIPPED_FOLDERS = {"node_modules", "dist", "__pycache__"}
LINE_LIMIT = 400
REASON_LINES = 12
REASON = re.compile(r"\b(long(er than \d+ lines)? because|generated)\b", re.IGNORECASE)


def inside(path, room):
    return path == room or path.startswith(room + "/")


def room_of(path):
    """The room that a path lies in; samples/own_source.cpp is of samples/own_source."""
    found = [room for room in ROOMS if inside(path, room) or path.startswith(room + ".")]
    return max(found, key=len, default=None)


def is_ours(path):
    return path.split("/")[0] in ("profiler", "hooks", "reports", "samples", "tests")


def spoken(rooms):
    """["a", "b", "c"] -> "a, b and c"."""
    return rooms[0] if len(rooms) == 1 else ", ".join(rooms[:-1]) + " and " + rooms[-1]


def resolve(quote, name, including, root):
    """The path of an included file from the root, or None when it is not ours."""
    if name.startswith("torchtally/"):
        return "profiler/include/" + name
    if is_ours(name):
        return name
    beside = os.path.normpath(os.path.join(os.path.dirname(including), name))
    if quote == '"' and (root / beside).is_file():
        return beside
    return None


def check_ours(room, target):
    allowed = ROOMS[room]
    if inside(target, room) or any(inside(target, other) for other in allowed):
        return None
    if room_of(target) is None:
        return f"{target}, which lies in no room of the table in scripts/check_layers.py"
    also = f", and besides only {spoken(allowed)}" if allowed else " and nothing else of ours"
    return f"{target}, but {room} may include itself{also}"


def check_third_party(path, room, name):
    for what, pattern, allowed in THIRD_PARTIES:
        if pattern.match(name) and not any(inside(path, other) for other in allowed):
            return f"<{name}>, but {what} may only be included in {spoken(allowed)}"
    public_torch = path in TORCH_HEADERS and LIBTORCH[1].match(name)
    if room == PUBLIC and not STANDARD.fullmatch(name) and not public_torch:
        return (f"<{name}>, but a public header may include the standard library and other public "
                "headers only, and profiler.h and checkpoint.h LibTorch's")
    return None


def check_include(path, quote, name, root):
    """What is wrong with an include, or None."""
    room = room_of(path)
    if room is None:
        return f"{name}, but {path} lies in no room of the table in scripts/check_layers.py"
    if ".." in name.split("/"):
        return f"{name}, but includes are written from the repository's root"
    target = resolve(quote, name, path, root)
    return check_third_party(path, room, name) if target is None else check_ours(room, target)


def check_includes(path, lines, root):
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if match:
            wrong = check_include(path, match[1], match[2], root)
            if wrong:
                yield f"{path}:{number}: includes {wrong}."


def check_top(path, lines):
    start = 1 if lines and lines[0].startswith("#!") else 0
    if "SPDX-License-Identifier: Apache-2.0" not in "".join(lines[start:start + 1]):
        yield (f"{path}:{start + 1}: does not begin with 'SPDX-License-Identifier: Apache-2.0' "
               "in a comment.")
    if len(lines) > LINE_LIMIT:
        # A reason may run over the end of a line.
        top = " ".join(re.sub(r"^\W+", "", line) for line in lines[:REASON_LINES])
        if not REASON.search(top):
            yield (f"{path}:1: has {len(lines)} lines, more than {LINE_LIMIT}: split it, or say in "
                   f"its first {REASON_LINES} lines 'Long because ...'.")


def is_source(path):
    if path.suffix in SOURCES or path.name == "CMakeLists.txt":
        return True
    return not path.suffix and path.parts[0] in ("scripts", ".ci")


def sources(root):
    for folder, folders, files in os.walk(root):
        here = pathlib.Path(folder).relative_to(root)
        folders[:] = sorted(
            name for name in folders
            if name not in SKIPPED_FOLDERS and (not name.startswith(".") or name == ".ci")
            and not (here == pathlib.Path(".") and re.match(r"build($|-)", name)))
        for name in sorted(files):
            if is_source(here / name) and not name.startswith("."):
                yield (here / name).as_posix()


def check(root):
    count = 0
    problems = []
    for path in sources(root):
        count += 1
        lines = (root / path).read_text(encoding="utf-8").splitlines()
        problems += check_top(path, lines)
        if pathlib.Path(path).suffix in CPP and is_ours(path):
            problems += check_includes(path, lines, root)
    return count, problems


# ---- self-test -----------------------------------------------------------------------------------

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"

# File, its text, and what the sentence about it must contain (None: nothing is wrong).
PLANTED = [
    ("profiler/core/good.h", SPDX + '#include <vector>\n#include "profiler/core/ids.h"\n', None),
    ("profiler/core/up.h", SPDX + '#include "profiler/ledger/ledger.h"\n',
     "profiler/core/up.h:2: includes profiler/ledger/ledger.h, but profiler/core may include "
     "itself and nothing else of ours."),
    ("profiler/ledger/torch.cpp", SPDX + "#include <ATen/ATen.h>\n", ":2: includes <ATen/ATen.h>"),
    ("profiler/ledger/sql.cpp", SPDX + "\n  #  include <sqlite3.h>\n", ":3: includes <sqlite3.h>"),
    ("profiler/recording/good.cpp", SPDX + '#include "profiler/ledger/books.h"\n', None),
    ("profiler/recording/ledger.cpp", SPDX + '#include "profiler/ledger/ledger.h"\n',
     "besides only profiler/core and profiler/ledger/books.h."),
    ("reports/good.cpp", SPDX + '#include "profiler/analysis/summary.h"\n', None),
    ("reports/reader.cpp", SPDX + '#include "profiler/recording/reader.h"\n', "reports may include"),
    ("hooks/torch/other.cpp", SPDX + '#include "hooks/cuda/x.h"\n', "hooks/torch may include"),
    ("hooks/cuda/x.h", SPDX, None),
    ("hooks/new/x.h", SPDX + "#include <vector>\n", "lies in no room"),
    ("profiler/session/good.cpp", SPDX + '#include "hooks/cuda/x.h"\n', None),
    ("profiler/session/up.cpp", SPDX + '#include "reports/text.h"\n', "profiler/session may include"),
    ("profiler/api/dots.cpp", SPDX + '#include "../core/ids.h"\n', "from the repository's root"),
    (PUBLIC + "/profiler.h", SPDX + "#include <torch/types.h>\n#include <string>\n", None),
    (PUBLIC + "/estimate.h", SPDX + '#include "profiler/core/ids.h"\n', "may include itself"),
    (PUBLIC + "/json.h", SPDX + "#include <nlohmann/json.hpp>\n", "a public header may include"),
    ("samples/good.cpp", SPDX + '#include <torchtally/profiler.h>\n#include "beside.h"\n', None),
    ("samples/beside.h", SPDX, None),
    ("samples/inside.cpp", SPDX + '#include "profiler/core/ids.h"\n', "samples may include"),
    ("samples/own_source.cpp", SPDX + '#include "profiler/core/ids.h"\n', None),
    ("tests/core/good.cpp", SPDX + '#include "hooks/cuda/x.h"\n', None),
    ("tests/core/bare.cpp", "#include <vector>\n", "does not begin with 'SPDX"),
    ("scripts/tool", "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n", None),
    ("scripts/bare", "#!/bin/sh\necho\n", "scripts/bare:2: does not begin with 'SPDX"),
    ("reports/long.cpp", SPDX + "int x;\n" * LINE_LIMIT, "has 401 lines"),
    ("reports/table.cpp", SPDX + "// Long\n// because it is a table.\n" + "int x;\n" * 500, None),
    ("build/generated.cpp", "#include \"profiler/core/ids.h\"\n", None),
]


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for path, text, _ in PLANTED:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        _, problems = check(root)
    failures = []
    for path, _, wanted in PLANTED:
        said = [problem for problem in problems if problem.startswith(path + ":")]
        if wanted is None and said:
            failures.append(f"{path} is right, and was called wrong: {said}")
        if wanted is not None and (len(said) != 1 or wanted not in said[0]):
            failures.append(f"{path}: wanted one sentence with '{wanted}', got {said}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", nargs="?", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent,
                        help="the repository (default: the one of this script)")
    parser.add_argument("--self-test", action="store_true",
                        help="check that planted mistakes are found")
    arguments = parser.parse_args()
    if arguments.self_test:
        failures = self_test()
        print("\n".join(failures) or f"{len(PLANTED)} planted files were judged as they should be.")
        return 1 if failures else 0
    if not (arguments.root / "profiler").is_dir():
        parser.error(f"{arguments.root} is not the repository: it has no folder 'profiler'")
    count, problems = check(arguments.root)
    print("\n".join(problems) or f"{count} sources keep to their layers.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
