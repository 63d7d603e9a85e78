"""Unit tests of pack.py, wasm.py and the list in images.py; they need nothing built.

    python3 -m unittest discover -s test-images -p 'test_*.py'
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
import unittest
from pathlib import Path

import images
import pack
import wasm
from pack import Entry, Image

# A module that imports one function, two limits and a global, and exports `_start`:
# (import "a" "f" (func)) (import "a" "m" (memory 1 2)) (import "a" "t" (table 3 funcref))
# (import "b" "g" (global (mut i32))) (func (export "_start"))
MODULE = wasm.HEADER + bytes.fromhex(
    "010401600000"  # type section: one empty function type
    "021c04016101660000" "0161016d02010102" "01610174017000" "03" "0162016703" "7f01"
    "03020100"
    "070a01065f73746172740001"
    "0a040102000b"
)


def custom(name: str, content: bytes) -> bytes:
    body = bytes([len(name)]) + name.encode() + content
    return bytes([0, len(body)]) + body


class Packed:
    """A layout tar, read back by other means than it was written."""

    def __init__(self, data: bytes) -> None:
        self.names: list[str] = []
        self.files: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            self.members = tar.getmembers()
            for member in self.members:
                self.names.append(member.name)
                if member.isfile():
                    self.files[member.name] = tar.extractfile(member).read()

    def json(self, path: str):
        return json.loads(self.files[path])

    def blob(self, descriptor: dict) -> bytes:
        """The blob of a descriptor, with the descriptor's claims checked."""
        data = self.files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert descriptor["digest"] == "sha256:" + hashlib.sha256(data).hexdigest()
        assert descriptor["size"] == len(data)
        return data

    def target(self) -> dict:
        [target] = self.json("index.json")["manifests"]
        return target

    def manifest(self) -> dict:
        at = json.loads(self.blob(self.target()))
        if "manifests" in at:
            at = json.loads(self.blob(at["manifests"][0]))
        return at

    def config(self) -> dict:
        return json.loads(self.blob(self.manifest()["config"]))


class PackCase(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.source = Path(scratch.name) / "source"
        self.build = Path(scratch.name) / "build"
        self.source.mkdir()
        self.build.mkdir()
        (self.source / "pack.py").write_bytes(b"the packer's own text")
        (self.build / "m.wasm").write_bytes(MODULE)

    def pack(self, image: Image, form: str) -> Packed:
        return Packed(pack.pack(image, form, pack.Reader(self.build, self.source)))

    def test_same_input_gives_the_same_bytes(self) -> None:
        image = Image("x", "m.wasm", files=(Entry("b/c", b"1"), Entry("a", b"2")), compress=True)
        for form in images.ALL_FORMS:
            one = pack.pack(image, form, pack.Reader(self.build, self.source))
            two = pack.pack(image, form, pack.Reader(self.build, self.source))
            self.assertEqual(one, two, form)

    def test_no_clock_and_no_owner_gets_in(self) -> None:
        packed = self.pack(Image("x", "m.wasm"), "rootfs")
        layer = packed.blob(packed.manifest()["layers"][0])
        for member in packed.members + tarfile.open(fileobj=io.BytesIO(layer)).getmembers():
            self.assertEqual((member.mtime, member.uid, member.gid, member.uname), (0, 0, 0, ""), member.name)

    def test_rootfs_is_a_plain_linux_image(self) -> None:
        image = Image("x", "m.wasm", files=(Entry("app/s.py", b"pass"),), cmd=("/app/s.py",), env=("A=b",))
        packed = self.pack(image, "rootfs")
        self.assertEqual(packed.json("oci-layout"), {"imageLayoutVersion": "1.0.0"})
        config = packed.config()
        self.assertEqual((config["architecture"], config["os"]), ("amd64", "linux"))
        expected = {"Entrypoint": ["/app.wasm"], "Cmd": ["/app/s.py"], "Env": ["A=b"], "WorkingDir": "/"}
        self.assertEqual(config["config"], expected)
        [layer] = packed.manifest()["layers"]
        data = packed.blob(layer)
        self.assertEqual(config["rootfs"]["diff_ids"], [layer["digest"]])
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            self.assertEqual(tar.getnames(), ["app", "app.wasm", "app/s.py", "data", "tmp"])
            self.assertEqual(tar.extractfile("app.wasm").read(), MODULE)
            self.assertEqual(tar.getmember("app.wasm").mode, 0o644)
            self.assertEqual(tar.getmember("tmp").mode, 0o1777)

    def test_docker_list_names_the_same_blobs(self) -> None:
        packed = self.pack(Image("x", "m.wasm"), "rootfs")
        [listed] = packed.json("manifest.json")
        self.assertEqual(listed["RepoTags"], ["coracle.test/x:rootfs"])
        self.assertEqual(json.loads(packed.files[listed["Config"]]), packed.config())
        self.assertEqual([packed.files[path] for path in listed["Layers"]],
                         [packed.blob(packed.manifest()["layers"][0])])

    def test_only_linux_images_have_the_docker_list(self) -> None:
        for form in images.ALL_FORMS:
            packed = self.pack(Image("x", "m.wasm"), form)
            self.assertEqual("manifest.json" in packed.names, form == "rootfs", form)

    def test_compressed_layer_has_the_digest_of_its_content_as_diff_id(self) -> None:
        packed = self.pack(Image("x", "m.wasm", compress=True), "rootfs")
        [layer] = packed.manifest()["layers"]
        self.assertEqual(layer["mediaType"], pack.GZIP_LAYER)
        inside = pack.gzip.decompress(packed.blob(layer))
        self.assertEqual(packed.config()["rootfs"]["diff_ids"], ["sha256:" + hashlib.sha256(inside).hexdigest()])

    def test_images_of_wasm_layers_are_told_apart_by_their_configs(self) -> None:
        configs = {
            self.pack(Image(name, "m.wasm"), form).manifest()["config"]["digest"]
            for name in ("x", "y") for form in ("layer", "layer-runwasi")
        }
        self.assertEqual(len(configs), 4)

    def test_wasm_layer_is_the_module_itself(self) -> None:
        for form, media_type in (("layer", pack.WASM), ("layer-runwasi", pack.RUNWASI_LAYER)):
            for index in ("", "-index"):
                packed = self.pack(Image("x", "m.wasm"), form + index)
                [layer] = packed.manifest()["layers"]
                self.assertEqual(layer["mediaType"], media_type)
                self.assertEqual(packed.blob(layer), MODULE)
                config = packed.config()
                self.assertEqual((config["architecture"], config["os"]), ("wasm", "wasip1"))
                self.assertEqual(config["rootfs"]["diff_ids"], [])
                self.assertEqual(config["config"]["Entrypoint"], ["/app.wasm"])
                self.assertEqual(packed.manifest()["config"]["mediaType"], pack.IMAGE_CONFIG)

    def test_index_form_goes_through_an_index_with_the_platform(self) -> None:
        bare = self.pack(Image("x", "m.wasm"), "layer").target()
        self.assertEqual(bare["mediaType"], pack.MANIFEST)
        packed = self.pack(Image("x", "m.wasm"), "layer-index")
        self.assertEqual(packed.target()["mediaType"], pack.INDEX)
        [inner] = json.loads(packed.blob(packed.target()))["manifests"]
        self.assertEqual(inner["platform"], {"architecture": "wasm", "os": "wasip1"})

    def test_every_form_carries_its_name(self) -> None:
        for form in images.ALL_FORMS:
            target = self.pack(Image("x", "m.wasm"), form).target()
            self.assertEqual(target["annotations"]["io.containerd.image.name"], f"coracle.test/x:{form}")
            self.assertEqual(target["annotations"]["org.opencontainers.image.ref.name"], form)

    def test_artifact_has_the_wasm_config(self) -> None:
        packed = self.pack(Image("x", "m.wasm"), "artifact")
        manifest, config = packed.manifest(), packed.config()
        self.assertEqual(manifest["config"]["mediaType"], pack.WASM_CONFIG)
        self.assertEqual([layer["mediaType"] for layer in manifest["layers"]], [pack.WASM])
        self.assertEqual(config["layerDigests"], [manifest["layers"][0]["digest"]])
        self.assertNotIn("config", config)

    def test_compat_says_so_in_platform_and_annotation(self) -> None:
        packed = self.pack(Image("x", "m.wasm"), "compat")
        self.assertEqual(packed.manifest()["annotations"], {"module.wasm.image/variant": "compat"})
        self.assertEqual((packed.config()["architecture"], packed.config()["os"]), ("wasm", "wasi"))

    def test_special_entries(self) -> None:
        entries = [Entry("d", kind="dir", mode=0o755), Entry("l", b"/d", kind="symlink"), Entry("p", kind="fifo"),
                   Entry("z", b"ab", pad=3)]
        with tarfile.open(fileobj=io.BytesIO(pack.tar_of(entries))) as tar:
            self.assertTrue(tar.getmember("d").isdir())
            self.assertEqual(tar.getmember("l").linkname, "/d")
            self.assertTrue(tar.getmember("p").isfifo())
            self.assertEqual(tar.extractfile("z").read(), b"ab\0\0\0")

    def test_parents_come_before_children(self) -> None:
        packed = self.pack(Image("x", "m.wasm", path="opt/deep/er.wasm"), "rootfs")
        layer = packed.blob(packed.manifest()["layers"][0])
        names = tarfile.open(fileobj=io.BytesIO(layer)).getnames()
        self.assertEqual(names, ["data", "opt", "opt/deep", "opt/deep/er.wasm", "tmp"])

    def test_packs_once_and_again_only_after_a_change(self) -> None:
        listed = [Image("x", "m.wasm", ("rootfs", "layer")), Image("y", content=b"y")]
        self.assertEqual(pack.pack_all(listed, self.build, self.source), (3, 0))
        self.assertEqual(pack.pack_all(listed, self.build, self.source), (0, 3))
        (self.build / "m.wasm").write_bytes(MODULE + custom("more", b""))
        self.assertEqual(pack.pack_all(listed, self.build, self.source), (2, 1))
        (self.build / "y--rootfs.tar").unlink()
        self.assertEqual(pack.pack_all(listed, self.build, self.source), (1, 2))
        (self.source / "pack.py").write_bytes(b"another packer")
        self.assertEqual(pack.pack_all(listed, self.build, self.source), (3, 0))

    def test_image_that_is_listed_no_more_is_removed(self) -> None:
        pack.pack_all([Image("x", "m.wasm"), Image("y", "m.wasm")], self.build, self.source)
        pack.pack_all([Image("y", "m.wasm")], self.build, self.source)
        self.assertEqual([path.name for path in self.build.glob("*.tar")], ["y--rootfs.tar"])

    def test_missing_input_is_named(self) -> None:
        with self.assertRaisesRegex(FileNotFoundError, "nowhere.wasm"):
            self.pack(Image("x", "nowhere.wasm"), "rootfs")


class ListCase(unittest.TestCase):
    def test_names_are_unique_and_valid_references(self) -> None:
        names = [image.name for image in images.IMAGES]
        self.assertEqual(len(names), len(set(names)))
        for name in names:
            self.assertRegex(name, r"^[a-z0-9]+(-[a-z0-9]+)*$")

    def test_forms_are_known(self) -> None:
        for image in images.IMAGES:
            for form in image.forms:
                self.assertIn(form.removesuffix("-index"), pack.FORMS, image.name)

    def test_sources_that_are_not_built_are_in_the_tree(self) -> None:
        here = Path(images.__file__).parent
        for image in images.IMAGES:
            for path in (image.module, *(entry.source for entry in image.files)):
                if "/" in path:
                    self.assertTrue((here / path).is_file(), path)

    def test_every_third_party_program_has_a_script_and_its_expected_output(self) -> None:
        here = Path(images.__file__).parent / "thirdparty"
        listed = {image.name.removeprefix("thirdparty-") for image in images.IMAGES if image.name.startswith("thirdparty-")}
        self.assertEqual(listed, {path.name for path in here.iterdir() if path.is_dir()})
        for name in listed:
            self.assertGreater((here / name / "expected.txt").stat().st_size, 0, name)

    def test_too_big_image_is_over_the_limit_by_its_one_section(self) -> None:
        [image] = [image for image in images.IMAGES if image.name == "bad-too-big"]
        [entry] = image.files
        kind = entry.data[8]
        length, content = wasm.uleb(entry.data, 9)
        self.assertEqual((kind, content, length), (wasm.CUSTOM, len(entry.data), entry.pad))
        self.assertGreater(entry.pad, 256 << 20)


class WasmCase(unittest.TestCase):
    def test_lists_imports_of_every_kind(self) -> None:
        self.assertEqual(wasm.imports(MODULE), [("a", "f"), ("a", "m"), ("a", "t"), ("b", "g")])
        self.assertEqual(wasm.imports(wasm.HEADER), [])

    def test_strips_debug_sections_and_nothing_else(self) -> None:
        names = custom("name", b"\x00\x02\x01m")
        fat = MODULE + custom(".debug_info", b"x" * 20) + names + custom(".debug_line", b"")
        self.assertEqual(wasm.strip_debug(fat), MODULE + names)
        self.assertEqual(wasm.strip_debug(MODULE), MODULE)

    def test_refuses_what_is_no_module(self) -> None:
        for data in (b"", b"\0asm", b"\x7fELF\x02\x01\x01\0", wasm.HEADER + b"\x01", wasm.HEADER + b"\x01\x05\0",
                     wasm.HEADER + b"\x01" + b"\xff" * 12):
            with self.assertRaises(ValueError, msg=data):
                wasm.strip_debug(data)


if __name__ == "__main__":
    unittest.main()
