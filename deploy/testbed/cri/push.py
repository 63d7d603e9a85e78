#!/usr/bin/env python3
"""Pushes OCI image layouts to a registry.

usage: push.py URL LAYOUT.tar...

Each image gets the name that its layout's index gives it (annotation io.containerd.image.name), without the registry's: the
layout of coracle.test/hello:layer becomes URL's hello:layer. Prints the names.
"""

import sys
import tarfile

from registry import Layout, Registry


def main(url: str, *layouts: str) -> None:
    registry = Registry(url)
    for path in layouts:
        with tarfile.open(path) as tar:
            print(*Layout(tar).push(registry), sep="\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
