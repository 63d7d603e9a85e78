"""Tests of the guards: that each one can fail."""

import tempfile
import unittest
from pathlib import Path

import guard

ENTRY = {"id": "GHSA-x", "title": "wrong code", "fixed": ["36.0.7", "48.0.4", "49.0.2"], "part": "code generator"}
ADVISORY = """```toml
[advisory]
id = "RUSTSEC-2026-9999"
package = "wasmtime"
date = "2026-11-01"
aliases = ["GHSA-x"]

[versions]
patched = [">= 36.0.7, < 37.0.0", ">= 48.0.9, < 49.0.0", ">= 49.0.6"]
```

# A fault
"""


class Tree(unittest.TestCase):
    def test_engines_are_found_and_what_cranelift_needs_is_not(self):
        crates = ["cranelift-codegen", "wasmparser", "wasmtime-internal-core", "wasmtime-environ",
                  "wasmtime", "wasmi_core", "wasmer-vm", "pulley-interpreter", "wasm-encoder"]
        found = ["wasmtime-environ", "wasmtime", "wasmi_core", "wasmer-vm", "pulley-interpreter"]
        self.assertEqual(guard.foreign_engines(crates), found)


class Versions(unittest.TestCase):
    def test_cranelift_maps_to_wasmtime(self):
        self.assertEqual(guard.wasmtime_release("0.135.8"), (48, 0, 8))
        self.assertEqual(guard.wasmtime_release("0.137.1"), (50, 0, 1))
        with self.assertRaises(guard.GuardError):
            guard.wasmtime_release("1.0.0")

    def test_the_lock_file_agrees(self):
        cranelift, release = guard.our_release()
        self.assertEqual(guard.wasmtime_release(cranelift), release)

    def test_a_fix_is_judged_by_line(self):
        for release, expected in [((48, 0, 3), False), ((48, 0, 4), True), ((49, 0, 1), False),
                                  ((50, 0, 0), True), ((36, 0, 9), True), ((40, 0, 0), False)]:
            self.assertEqual(guard.has_fix(release, ENTRY["fixed"]), expected, release)
        self.assertTrue(guard.has_fix((48, 0, 0), ["0.38.2"]))
        self.assertFalse(guard.has_fix((0, 38, 1), ["0.38.2"]))

    def test_requirements(self):
        for requirement, expected in [(">= 36.0.7, < 37.0.0", False), (">= 48.0.4", True),
                                      ("^48.0.9", False), ("< 49", True), ("=48.0.8", True)]:
            self.assertEqual(guard.satisfies((48, 0, 8), requirement), expected, requirement)
        with self.assertRaises(guard.GuardError):
            guard.satisfies((48, 0, 8), "the newest")


class Reviewed(unittest.TestCase):
    def test_a_missing_fix_is_a_fault_only_where_it_applies(self):
        applies = {**ENTRY, "verdict": "applies"}
        self.assertEqual(guard.check_reviewed([applies], (48, 0, 4)).faults, [])
        self.assertEqual(len(guard.check_reviewed([applies], (48, 0, 3)).faults), 1)
        other = {**ENTRY, "verdict": "not ours", "reason": "we have no such thing"}
        report = guard.check_reviewed([other], (48, 0, 3))
        self.assertEqual((len(report.lines), report.faults), (1, []))

    def test_an_entry_needs_a_verdict_and_a_reason(self):
        for verdict in ("not ours", "perhaps"):
            report = guard.check_reviewed([{**ENTRY, "verdict": verdict}], (48, 0, 8))
            self.assertEqual(len(report.faults), 1, verdict)

    def test_the_list_itself_is_whole(self):
        data = guard.tomllib.loads((guard.HERE / "advisories.toml").read_text())
        names = [name for entry in data["advisory"] for name in [entry["id"], *entry.get("aliases", [])]]
        self.assertEqual(len(names), len(set(names)), "an advisory is listed twice")
        for entry in data["advisory"]:
            self.assertIn(entry["part"], ["code generator", "runtime", "components", "WASI", "API"])
            self.assertTrue(entry["fixed"] and entry["title"], entry["id"])
            if entry["part"] == "code generator":
                self.assertEqual(entry["verdict"], "applies", entry["id"])


class Database(unittest.TestCase):
    def check(self, entries, release):
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder, "crates", "wasmtime")
            package.mkdir(parents=True)
            (package / "RUSTSEC-2026-9999.md").write_text(ADVISORY)
            return guard.check_database(Path(folder), entries, release)

    def test_what_is_not_reviewed_is_a_fault(self):
        self.assertEqual(len(self.check([], (48, 0, 8)).faults), 1)
        self.assertEqual(self.check([], (48, 0, 9)).faults, [])

    def test_a_verdict_decides(self):
        self.assertEqual(self.check([{**ENTRY, "verdict": "not ours"}], (48, 0, 8)).faults, [])
        self.assertEqual(len(self.check([{**ENTRY, "verdict": "applies"}], (48, 0, 8)).faults), 1)

    def test_a_folder_without_advisories_is_no_database(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(guard.GuardError):
            guard.check_database(Path(folder), [], (48, 0, 8))


if __name__ == "__main__":
    unittest.main()
