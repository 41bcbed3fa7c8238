# SPDX-License-Identifier: Apache-2.0
"""Bytes as people write them: MiB and GiB are binary, MB and GB decimal."""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_bytes(text: int | str) -> int:
    """Bytes of "1.2 GiB" (binary), "800 MB" (decimal) or a number. Raises ValueError."""
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-zA-Z]*)\s*", text)
    if not match or match[2].lower() not in _UNITS:
        raise ValueError(f"'{text}' is no number of bytes; write it as '1.2 GiB', '800 MB' or 123456")
    return round(float(match[1]) * _UNITS[match[2].lower()])


def parse_source_lines(size: int | str | bool | None) -> int:
    """Bytes from which on blocks get a source line; 0: none does. Raises ValueError."""
    if size is True:
        return 1 << 20
    if not size or size == "off":
        return 0
    return parse_bytes(size)


def format_bytes(size: int) -> str:
    """Binary: "1.20 GiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _UNITS[unit.lower()]:
            return f"{size / _UNITS[unit.lower()]:.2f} {unit}"
    return f"{size} B"
