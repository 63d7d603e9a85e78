#!/usr/bin/env python3
"""Packs the images listed in images.py as OCI image layouts, one tar file each.

    pack.py BUILD_DIR          write BUILD_DIR/NAME--FORM.tar for every image and form

Every tar can be given to `ctr images import` and, where its platform allows, `docker load`. The
bytes depend on nothing but the inputs: no clocks, fixed owners, sorted entries. An image whose
inputs did not change is left alone; the tar of an image that is listed no more is removed.

Specifications: OCI image-spec 1.1 (image-layout.md, manifest.md, config.md, layer.md), CNCF
"Wasm OCI Artifact" for the form `artifact`, and for `docker load` with Docker's older image
store, which reads manifest.json, the Docker image specification 1.2.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REGISTRY = "coracle.test"
EPOCH = "1970-01-01T00:00:00Z"

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
TAR_LAYER = "application/vnd.oci.image.layer.v1.tar"
GZIP_LAYER = TAR_LAYER + "+gzip"
WASM = "application/wasm"
WASM_CONFIG = "application/vnd.wasm.config.v0+json"
RUNWASI_LAYER = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"

LINUX = {"architecture": "amd64", "os": "linux"}
WASIP1 = {"architecture": "wasm", "os": "wasip1"}
WASI = {"architecture": "wasm", "os": "wasi"}


@dataclass(frozen=True)
class Entry:
    """One entry of a layer. `source`, a path in the build or source folder, wins over `data`."""

    path: str
    data: bytes = b""
    source: str = ""
    mode: int = 0o644
    kind: str = "file"  # file, dir, symlink (data is the target) or fifo
    pad: int = 0  # zero bytes after the data, for images that are too big


@dataclass(frozen=True)
class Image:
    """One program; each of `forms` makes one image of it."""

    name: str
    module: str = ""  # file in the build or source folder; becomes the layer or the entry point
    forms: tuple[str, ...] = ("rootfs",)
    content: bytes = b""  # the module itself, in place of a file
    path: str = "app.wasm"  # of the module in the rootfs
    files: tuple[Entry, ...] = ()
    entrypoint: tuple[str, ...] = ()  # "/" + path where empty
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    layer_type: str = ""  # media type of the module's layer, in place of the form's own
    compress: bool = False


@dataclass
class Layout:
    """An OCI image layout in the making: blobs by digest, then the files on top."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def add(self, media_type: str, data: bytes) -> dict[str, Any]:
        """Adds a blob and gives its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def tar(self) -> bytes:
        # The layout's own files first, so that a reader knows at once what it reads.
        return tar_of([
            *(Entry(path, data) for path, data in sorted(self.files.items())),
            *(Entry(path, kind="dir", mode=0o755) for path in ("blobs", "blobs/sha256")),
            *(Entry(path, data) for path, data in sorted(self.blobs.items())),
        ])


def tar_of(entries: list[Entry]) -> bytes:
    """A tar of the entries in their order, every one owned by root and dated to the epoch."""
    out = io.BytesIO()
    kinds = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE, "fifo": tarfile.FIFOTYPE}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.type, info.mode, info.mtime = kinds[entry.kind], entry.mode, 0
            if entry.kind == "symlink":
                info.linkname = entry.data.decode()
            data = entry.data + bytes(entry.pad) if entry.kind == "file" else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def rootfs_entries(image: Image, read: Reader) -> list[Entry]:
    """The layer's entries with their contents, parents before children, sorted by path."""
    entries = {
        "tmp": Entry("tmp", kind="dir", mode=0o1777),
        "data": Entry("data", kind="dir", mode=0o755),
    }
    listed = list(image.files)
    if image.module or image.content:
        # Not executable on purpose: a wasm entry point needs no execute bit.
        listed.append(Entry(image.path, image.content, source=image.module))
    for entry in listed:
        for parent in list(Path(entry.path).parents)[:-1]:
            entries.setdefault(str(parent), Entry(str(parent), kind="dir", mode=0o755))
        data = read(entry.source) if entry.source else entry.data
        entries[entry.path] = Entry(entry.path, data, mode=entry.mode, kind=entry.kind, pad=entry.pad)
    return [entries[path] for path in sorted(entries)]


class Reader:
    """Reads inputs from the build folder, else from the source folder, and remembers which."""

    def __init__(self, build: Path, source: Path) -> None:
        self.folders = (build, source)
        self.seen: dict[str, bytes] = {}

    def __call__(self, path: str) -> bytes:
        if path not in self.seen:
            for folder in self.folders:
                if (folder / path).is_file():
                    self.seen[path] = (folder / path).read_bytes()
                    break
            else:
                raise FileNotFoundError(f"{path}: not in {' nor in '.join(map(str, self.folders))}")
        return self.seen[path]


def process_config(image: Image) -> dict[str, Any]:
    config: dict[str, Any] = {"Entrypoint": list(image.entrypoint or ("/" + image.path,)), "WorkingDir": "/"}
    if image.cmd:
        config["Cmd"] = list(image.cmd)
    if image.env:
        config["Env"] = list(image.env)
    return config


def dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def pack(image: Image, form: str, read: Reader) -> bytes:
    """The layout tar of one image in one form."""
    layout = Layout()
    reference = f"{REGISTRY}/{image.name}:{form}"
    platform, manifest = FORMS[form.removesuffix("-index")](image, layout, read, reference)
    target = layout.add(MANIFEST, dump({"schemaVersion": 2, "mediaType": MANIFEST, **manifest}))
    if platform:
        target["platform"] = platform
    if form.endswith("-index"):
        target = layout.add(INDEX, dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": [target]}))
    target["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": form,
    }
    layout.files["index.json"] = dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": [target]})
    layout.files["oci-layout"] = dump({"imageLayoutVersion": "1.0.0"})
    return layout.tar()


Built = tuple[dict[str, str] | None, dict[str, Any]]


def _tar_image(image: Image, layout: Layout, read: Reader, reference: str, platform: dict[str, str]) -> Built:
    """An ordinary image: one tar layer that holds the module as a file."""
    tar = tar_of(rootfs_entries(image, read))
    diff_id = "sha256:" + hashlib.sha256(tar).hexdigest()
    if image.compress:
        layer = layout.add(GZIP_LAYER, gzip.compress(tar, compresslevel=6, mtime=0))
    else:
        layer = layout.add(TAR_LAYER, tar)
    config = layout.add(IMAGE_CONFIG, dump({
        "created": EPOCH, **platform, "config": process_config(image),
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": EPOCH, "created_by": "test-images/pack.py"}],
    }))
    if platform == LINUX:
        # Docker's older image store knows no OCI layout, only this list, and only such images.
        config_file, layer_file = ("blobs/" + at["digest"].replace(":", "/") for at in (config, layer))
        layout.files["manifest.json"] = dump([{"Config": config_file, "RepoTags": [reference], "Layers": [layer_file]}])
    return platform, {"config": config, "layers": [layer]}


def rootfs(image: Image, layout: Layout, read: Reader, reference: str) -> Built:
    return _tar_image(image, layout, read, reference, LINUX)


def compat(image: Image, layout: Layout, read: Reader, reference: str) -> Built:
    platform, manifest = _tar_image(image, layout, read, reference, WASI)
    return platform, {**manifest, "annotations": {"module.wasm.image/variant": "compat"}}


def _wasm_image(image: Image, layout: Layout, read: Reader, reference: str, media_type: str) -> Built:
    """An OCI image whose layer is the module itself; `diff_ids` lists tar layers only: none.

    So nothing in its config tells it from another's. CRI knows images by the digests of their configs, and would take
    all that have the same one for one image: this one names itself.
    """
    layer = layout.add(image.layer_type or media_type, image.content or read(image.module))
    config = layout.add(IMAGE_CONFIG, dump({
        "created": EPOCH, **WASIP1, "rootfs": {"type": "layers", "diff_ids": []},
        "config": {**process_config(image), "Labels": {"org.opencontainers.image.ref.name": reference}},
    }))
    return WASIP1, {"config": config, "layers": [layer]}


def layer(image: Image, layout: Layout, read: Reader, reference: str) -> Built:
    return _wasm_image(image, layout, read, reference, WASM)


def layer_runwasi(image: Image, layout: Layout, read: Reader, reference: str) -> Built:
    return _wasm_image(image, layout, read, reference, RUNWASI_LAYER)


def artifact(image: Image, layout: Layout, read: Reader, _reference: str) -> Built:
    """A CNCF artifact: no entry point, no platform outside its own kind of config."""
    layer = layout.add(WASM, read(image.module))
    config = layout.add(WASM_CONFIG, dump({"created": EPOCH, **WASIP1, "layerDigests": [layer["digest"]]}))
    return None, {"artifactType": WASM, "config": config, "layers": [layer]}


# A form is one of these, or one of these with "-index" behind it: the manifest is then reached
# through an image index of its own, as registries serve it.
FORMS = {
    "rootfs": rootfs,
    "wat": rootfs,
    "compat": compat,
    "layer": layer,
    "layer-runwasi": layer_runwasi,
    "artifact": artifact,
}


def pack_all(images: list[Image], build: Path, source: Path) -> tuple[int, int]:
    """Packs what changed; gives the numbers of images written and of those left alone."""
    stamps = build / ".stamps"
    stamps.mkdir(parents=True, exist_ok=True)
    code = (source / "pack.py").read_bytes()
    written = kept = 0
    wanted: set[str] = set()
    for image in images:
        read = Reader(build, source)
        key = hashlib.sha256(code + repr(image).encode())
        for path in filter(None, (image.module, *(entry.source for entry in image.files))):
            key.update(hashlib.sha256(read(path)).digest())
        for form in image.forms:
            name = f"{image.name}--{form}.tar"
            wanted.add(name)
            if _stamp_is(stamps / name, key.hexdigest()) and (build / name).is_file():
                kept += 1
                continue
            _replace(build / name, pack(image, form, read))
            _replace(stamps / name, key.hexdigest().encode())
            written += 1
    for stale in set(path.name for path in build.glob("*--*.tar")) - wanted:
        (build / stale).unlink()
        (stamps / stale).unlink(missing_ok=True)
    return written, kept


def _stamp_is(path: Path, key: str) -> bool:
    return path.is_file() and path.read_text() == key


def _replace(path: Path, data: bytes) -> None:
    """Writes beside the target and renames, so that a killed build leaves no half file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def main(args: list[str]) -> int:
    if len(args) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    from images import IMAGES

    try:
        written, kept = pack_all(IMAGES, Path(args[0]), Path(__file__).resolve().parent)
    except FileNotFoundError as error:
        print(f"pack.py: missing input {error}; run test-images/build.sh first", file=sys.stderr)
        return 1
    print(f"images: {written} packed, {kept} up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
