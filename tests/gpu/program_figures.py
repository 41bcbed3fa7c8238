# SPDX-License-Identifier: Apache-2.0
"""Figures of training programs in Python on a CUDA device, as JSON: program_figures.py [--virtual FOLDER].

The programs are those of tests/virtual_gpu, so that a real card's figures stand beside the virtual one's.
Exit code 1: some books did not close."""
import json
import os
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "virtual_gpu"))
VIRTUAL = len(sys.argv) > 2 and sys.argv[1] == "--virtual"
if VIRTUAL:
    import virtual_gpu

    virtual_gpu.activate(sys.argv[2], device=os.environ.get("VIRTUAL_GPU_DEVICE", "H100 80GB"))
import programs  # noqa: E402
import torch  # noqa: E402
from test_programs import PROGRAMS, Recorded, check_books, mark_of  # noqa: E402

STEPS = 6


def out_of_memory() -> programs.Program:
    """GPT, and in each step the card is filled until it refuses."""
    held: list[torch.Tensor] = []
    program = programs.gpt()

    def step() -> None:
        try:
            while True:
                held.append(torch.empty(1 << 30, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            held.clear()
        program.step()

    return programs.Program(program.model, program.optimizer, step)


def seconds_a_step(make, profiled: bool, folder: pathlib.Path) -> float:
    """Of the fastest of some: clocks drift."""
    import torchtally

    program = make()
    profile = torchtally.profile(recording=folder / "timed.tally", enabled=profiled)
    fastest = float("inf")
    with profile:
        for _ in range(STEPS):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            program.step()
            torch.cuda.synchronize()
            fastest = min(fastest, time.perf_counter() - begin)
    return fastest


def figures(name: str, make, folder: pathlib.Path) -> dict:
    out = {"program": name}
    try:
        recorded = Recorded(make, folder, attached="start")
        out["marks"] = check_books(recorded.data)
        end = mark_of(recorded.data, "end")
        edges = [m for m in recorded.data["steps"][-1]["devices"]["cuda:0"]["marks"]
                 if m["name"] == "forward_edge"]
        out |= {
            "peak_bytes": recorded.peak,
            "reserved_peak_bytes": recorded.reserved_peak,
            "saved_bytes": edges[-1]["saved_bytes"] if edges else 0,
            "workspace_bytes": end["roles"]["workspace"],
            "unattributed_bytes": end["roles"]["unattributed"],
            "outside_bytes": end["caching"]["outside_allocator"],
            "books_close": True,
        }
    except AssertionError as error:
        out |= {"books_close": False, "why": str(error)[:2000]}
    except (ImportError, torch.OutOfMemoryError) as error:
        out["left_out"] = f"{type(error).__name__}: {str(error)[:200]}"
    return out


def main() -> int:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        wanted = dict(PROGRAMS) | {"out of memory": out_of_memory}
        if torch.cuda.mem_get_info()[1] > 130 * programs.GIB:
            wanted["Llama 7B"] = programs.llama_7b
        for name, make in wanted.items():
            row = figures(name, make, folder)
            # A virtual card computes nothing: times on it are the host's alone.
            if row.get("books_close") and not VIRTUAL and name != "out of memory":
                plain = seconds_a_step(make, False, folder)
                with_profiler = seconds_a_step(make, True, folder)
                row["slowdown"] = round(with_profiler / plain, 3)
            rows.append(row)
    print(json.dumps(rows, indent=1))
    return 0 if all(row.get("books_close", True) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
