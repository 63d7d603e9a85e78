#!/usr/bin/env python3
"""Small look into WebAssembly modules: drop debug sections, list imports.

Only the section framing and the import section are read (core specification, binary format,
"Modules"); everything else is passed through untouched.

    wasm.py strip IN OUT       copy without the sections named .debug_*, function names stay
    wasm.py imports FILE ...   one line "FILE  module.name module.name ..." each
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

HEADER = b"\0asm\x01\0\0\0"
CUSTOM, IMPORT = 0, 2


def uleb(data: bytes, at: int) -> tuple[int, int]:
    """Reads one unsigned LEB128 number; gives it and the offset behind it."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"bad number at offset {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def name(data: bytes, at: int) -> tuple[str, int]:
    """Reads one length-prefixed UTF-8 name; gives it and the offset behind it."""
    length, at = uleb(data, at)
    if at + length > len(data):
        raise ValueError(f"name at offset {at} runs past the end")
    return data[at : at + length].decode(), at + length


def sections(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yields (id, start of the whole section, start of its content, end)."""
    if data[:8] != HEADER:
        raise ValueError("not a core WebAssembly module of version 1")
    at = 8
    while at < len(data):
        length, content = uleb(data, at + 1)
        end = content + length
        if end > len(data):
            raise ValueError(f"section at offset {at} runs past the end")
        yield data[at], at, content, end
        at = end


def strip_debug(data: bytes) -> bytes:
    """The module without DWARF; the "name" section, which backtraces need, is kept."""
    kept = [HEADER]
    for kind, start, content, end in sections(data):
        if kind == CUSTOM and name(data, content)[0].startswith(".debug_"):
            continue
        kept.append(data[start:end])
    return b"".join(kept)


def imports(data: bytes) -> list[tuple[str, str]]:
    """The (module, name) pairs that the module imports, in its order."""
    found: list[tuple[str, str]] = []
    for kind, _, at, _ in sections(data):
        if kind != IMPORT:
            continue
        count, at = uleb(data, at)
        for _ in range(count):
            module, at = name(data, at)
            field, at = name(data, at)
            found.append((module, field))
            at = _skip_description(data, at)
    return found


def _skip_description(data: bytes, at: int) -> int:
    kind, at = data[at], at + 1
    if kind == 0:  # function: type index
        return uleb(data, at)[1]
    if kind == 3:  # global: value type, mutability
        return at + 2
    if kind == 4:  # tag: attribute, type index
        return uleb(data, at + 1)[1]
    if kind == 1:  # table: reference type, then limits like a memory's
        at += 1
    elif kind != 2:
        raise ValueError(f"unknown kind of import {kind}")
    flags, at = data[at], at + 1
    at = uleb(data, at)[1]
    return uleb(data, at)[1] if flags & 1 else at


def main(args: list[str]) -> int:
    match args:
        case ["strip", source, target]:
            Path(target).write_bytes(strip_debug(Path(source).read_bytes()))
        case ["imports", _, *_]:
            for file in args[1:]:
                pairs = sorted(f"{module}.{field}" for module, field in imports(Path(file).read_bytes()))
                print(f"{Path(file).name}  {' '.join(pairs) or '-'}")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
