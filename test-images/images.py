"""The list of test images: what `pack.py` packs, and under which names.

An image is named coracle.test/NAME:FORM. A name without a language is the C program; the others
carry their language. README.md tells what each image does and what a test may expect of it.
"""

from pack import Entry, Image

# Every form in which a module travels, for the images that test the forms.
ALL_FORMS = ("rootfs", "compat", "layer", "layer-index", "layer-runwasi", "layer-runwasi-index", "artifact")
BOTH = ("rootfs", "layer")


def _programs() -> list[Image]:
    images = [Image(name, f"{name}.wasm", ALL_FORMS) for name in ("hello", "hello-go", "hello-rust")]
    for name in ("exit-code", "trap", "files", "env-args", "stdin-echo"):
        images += [Image(f"{name}{language}", f"{name}{language}.wasm", BOTH) for language in ("", "-go", "-rust")]
    images += [Image(name, f"{name}.wasm", BOTH) for name in ("spin", "spin-go", "sleep", "sockets", "sockets-rust", "listen-go", "listen-rust", "listen-tokio")]
    for name in ("hello", "exit-code", "trap", "spin"):
        images.append(Image(f"{name}-wat", f"{name}/{name}.wat", ("wat",), path="app.wat"))
    return images


def _entry_points() -> list[Image]:
    """Good images whose entry point is named in a less common way."""
    return [
        Image("entry-export", "entry/export.wat", ("wat",), path="app.wat", entrypoint=("/app.wat#greet",)),
        Image("entry-path", "hello.wasm", path="opt/bin/app.wasm", entrypoint=("app.wasm",), env=("PATH=/usr/bin:/opt/bin",)),
        Image("entry-no-suffix", "hello.wasm", path="app"),
        # Absolute, so it must be resolved inside the container's own root.
        Image("entry-symlink", "hello.wasm", path="opt/real.wasm", entrypoint=("/app.wasm",),
              files=(Entry("app.wasm", b"/opt/real.wasm", kind="symlink"),)),
        Image("entry-unusable", "hello.wasm", ("layer",), entrypoint=("/",)),
    ]


# A complete program for linux/amd64 that would exit with 42 if anything ran it natively.
ELF = bytes.fromhex(
    "7f454c4602010100000000000000000002003e0001000000780040000000000040000000000000000000000000000000"
    "000000004000380001000000000000000100000005000000000000000000000000004000000000000000400000000000"
    "840000000000000084000000000000000010000000000000b8e7000000bf2a0000000f05"
)


def _bad() -> list[Image]:
    """Images that must be refused with one readable sentence."""

    def entry(name: str, data: bytes = b"", kind: str = "file", mode: int = 0o644) -> Image:
        return Image(f"bad-{name}", files=(Entry("app.wasm", data, kind=kind, mode=mode),))

    return [
        Image("bad-not-wasm", content=b"This is a text file, not a WebAssembly module.\n", forms=BOTH),
        Image("bad-elf", content=ELF, forms=(*BOTH, "layer-runwasi")),
        Image("bad-version", content=b"\0asm\x02\0\0\0"),
        Image("bad-component", content=b"\0asm\x0d\0\x01\0", forms=BOTH),
        entry("empty"),
        entry("directory", kind="dir", mode=0o755),
        entry("fifo", kind="fifo"),
        entry("symlink-loop", b"/app.wasm", kind="symlink"),
        Image("bad-missing-file"),
        Image("bad-truncated", "bad-truncated.wasm", BOTH),
        Image("bad-imports", "bad-imports.wasm", BOTH),
        Image("bad-signature", "bad-signature.wasm"),
        Image("bad-no-start", "bad-no-start.wasm", BOTH),
        Image("bad-start-with-parameter", "bad/start-with-parameter.wat", ("wat",), path="app.wat"),
        Image("bad-no-memory", "bad/no-memory.wat", ("wat",), path="app.wat"),
        Image("bad-syntax", "bad/syntax.wat", ("wat",), path="app.wat"),
        Image("bad-export", "hello.wasm", entrypoint=("/app.wasm#no_such_export",)),
        Image("bad-media-type", "hello.wasm", ("layer",), layer_type="application/vnd.example.unknown.v1+wasm"),
        # A valid header and one custom section that takes the module over the limit of 256 MiB.
        Image("bad-too-big", compress=True,
              files=(Entry("app.wasm", b"\0asm\x01\0\0\0" + b"\0\x81\x80\x80\x80\x01", pad=(256 << 20) + 1),)),
    ]


def _third_party() -> list[Image]:
    """Programs that the project did not write, each with a script to run."""

    def program(name: str, script: str, *cmd: str) -> Image:
        files = (Entry(f"app/{script}", source=f"thirdparty/{name}/{script}"),)
        return Image(f"thirdparty-{name}", f"thirdparty-{name}.wasm", files=files, cmd=cmd, env=("HOME=/tmp",))

    return [
        program("python", "script.py", "/app/script.py"),
        program("ruby", "script.rb", "/app/script.rb"),
        program("quickjs", "script.js", "/app/script.js"),
        program("sqlite", "script.sql", "-batch", "/tmp/test.db", ".read /app/script.sql"),
        program("usvg", "script.svg", "/app/script.svg", "-c"),
        program("gofmt", "script.txt", "/app/script.txt"),
    ]


# The applets of busybox that tests call by their names, or that its shell does not have built in.
APPLETS = ("sh", "cat", "echo", "grep", "head", "id", "mknod", "mount", "readlink", "sleep", "touch", "true", "unshare")


def _linux() -> list[Image]:
    """A program for Linux: busybox of the Debian package busybox-static, linked statically."""
    applets = tuple(Entry(f"bin/{name}", b"busybox", kind="symlink") for name in APPLETS)
    files = (Entry("bin/busybox", source="busybox", mode=0o755), Entry("plain", b"#!/bin/sh\n"), *applets)
    return [Image("busybox", files=files, entrypoint=("/bin/busybox",), cmd=("sh",), env=("PATH=/bin",))]


IMAGES: list[Image] = _linux() + _programs() + _entry_points() + _bad() + _third_party()
