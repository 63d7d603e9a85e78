#!/usr/bin/env python3
"""Makes the images that critest pulls, and pushes them to a registry.

usage: images.py URL BUSYBOX NONEWPRIVS

Nothing is fetched: all are made of the two programs, both linked statically. They are called as critest 1.30 calls them,
without the registry's name: containerd asks the one at URL for every name.
"""

import gzip
import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from registry import Registry

PASSWD = """root:x:0:0:root:/root:/bin/sh
www-data:x:33:33::/var/www:/bin/false
nobody:x:65534:65534::/:/bin/false
default-user:x:1000:1000::/:/bin/sh
"""
GROUP = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"

# Commands that specs call and Debian's busybox lacks.
IPCS = "#!/bin/sh\nexec cat /proc/sysvipc/shm\n"
PGREP = "#!/bin/sh\nexec pidof \"$1\"\n"

# A web server that looks like nginx to whoever asks for its name, its pid or the command line of its first process.
SERVER = """#!/bin/sh
trap 'kill $!; exit 0' TERM QUIT
echo $$ >/var/run/nginx.pid
httpd -f -p {port} -h /www &
wait
"""
HTTPD = "#!/bin/sh\necho \"Command line: 'httpd -D FOREGROUND'\"\nexec httpd -f -p 80 -h /www\n"

MEDIA = "application/vnd.oci.image"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def layer(busybox: Path, files: dict[str, tuple[bytes, int]]) -> bytes:
    """A root file system with all of busybox's commands, and these files (content and mode)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
            tar.addfile(entry, io.BytesIO(data))

        for folder in ("bin", "etc", "root", "var", "var/run", "www"):
            add(folder, tarfile.DIRTYPE, 0o755)
        add("tmp", tarfile.DIRTYPE, 0o1777)
        add("bin/busybox", tarfile.REGTYPE, 0o755, busybox.read_bytes())
        applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
        for applet in sorted(set(applets) - {"busybox"}):
            if f"bin/{applet}" not in files:
                # A spec masks one of them, which must not mask what a link leads to.
                add(f"bin/{applet}", tarfile.LNKTYPE, 0o755, link="bin/busybox")
        for name, (data, mode) in sorted(files.items()):
            add(name, tarfile.REGTYPE, mode, data)
    return out.getvalue()


class Images(Registry):
    """A registry that gets images of one layer."""

    def push(self, name: str, root: bytes, config: dict[str, Any]) -> None:
        repository, _, tag = name.partition(":")
        packed = gzip.compress(root, compresslevel=1, mtime=0)
        whole = json.dumps({
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], **config},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(root).hexdigest()}"]},
        }).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA}.manifest.v1+json",
            "config": {
                "mediaType": f"{MEDIA}.config.v1+json",
                "digest": self.blob(repository, whole),
                "size": len(whole),
            },
            "layers": [{
                "mediaType": f"{MEDIA}.layer.v1.tar+gzip",
                "digest": self.blob(repository, packed),
                "size": len(packed),
            }],
        }
        self.manifest(repository, tag or "latest", json.dumps(manifest).encode(), manifest["mediaType"])


def images(nonewprivs: Path) -> dict[str, tuple[dict[str, tuple[bytes, int]], dict[str, Any]]]:
    """Names of images, with the files that they have besides busybox, and their configuration."""
    base = {
        "etc/passwd": (PASSWD.encode(), 0o644),
        "etc/group": (GROUP.encode(), 0o644),
        "bin/ipcs": (IPCS.encode(), 0o755),
        "bin/pgrep": (PGREP.encode(), 0o755),
    }
    page = {"www/index.html": (b"hello\n", 0o644)}

    def server(port: int) -> tuple[dict[str, tuple[bytes, int]], dict[str, Any]]:
        files = {**base, **page, "bin/nginx": (SERVER.format(port=port).encode(), 0o755)}
        return files, {"Entrypoint": ["/bin/nginx", "master process"], "StopSignal": "SIGQUIT"}

    def plain(number: int) -> tuple[dict[str, tuple[bytes, int]], dict[str, Any]]:
        return {**base, "number": (str(number).encode(), 0o644)}, {"Cmd": ["sh"]}

    e2e, tools = "e2e-test-images", "k8s-staging-cri-tools"
    all_images = {
        f"{e2e}/busybox:1.29-2": (base, {"Cmd": ["sh"]}),
        f"{e2e}/nginx:1.14-2": server(80),
        f"{tools}/hostnet-nginx-{ARCHITECTURE}": server(12003),
        f"{e2e}/httpd:2.4.39-4": (
            {**base, **page, "bin/httpd-foreground": (HTTPD.encode(), 0o755)},
            {"Cmd": ["httpd-foreground"]},
        ),
        f"{e2e}/nonewprivs:1.3": (
            {**base, "bin/nonewprivs": (nonewprivs.read_bytes(), 0o4755)},
            {"Cmd": ["nonewprivs"]},
        ),
        f"{tools}/test-image-predefined-group": (base, {"User": "1000", "Cmd": ["sh"]}),
        f"{tools}/test-image-latest": plain(0),
        f"{tools}/test-image-tag:test": plain(4),
        f"{tools}/test-image-tag:all": plain(5),
    }
    users = {"uid": "1002", "username": "www-data", "uid-group": "1003:users", "username-group": "www-data:100"}
    for name, user in users.items():
        all_images[f"{tools}/test-image-user-{name}"] = (base, {"User": user, "Cmd": ["sh"]})
    for number in (1, 2, 3):
        all_images[f"{tools}/test-image-{number}:latest"] = plain(number)
        all_images[f"{tools}/test-image-tags:{number}"] = plain(0)
    return all_images


def main(url: str, busybox: str, nonewprivs: str) -> None:
    registry = Images(url)
    for name, (files, config) in images(Path(nonewprivs)).items():
        registry.push(name, layer(Path(busybox), files), config)


if __name__ == "__main__":
    main(*sys.argv[1:])
