"""usage: guard.py tree | advisories

tree        fails when an engine other than ours is among the dependencies of what we ship
advisories  maps our Cranelift to the wasmtime release that carries it, and fails when that release
            lacks a fix that concerns us: by the reviewed list (advisories.toml), and by RustSec's
            database where one is at hand (the folder RUSTSEC_DB, or what cargo-deny fetched)
"""

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Engines and code that belongs to one. Names of crates, as whole words.
ENGINES = re.compile(
    r"^(wasmtime|wasmtime-.*|wasmer|wasmer-.*|wasmi|wasmi_.*|wasm3|wasm3-.*|wasm-micro-runtime|wamr-.*"
    r"|wasmedge-.*|wizard-engine|tinywasm|stitch|wain|wain-.*|pulley-.*|winch-.*|v8|rusty_v8|deno_core"
    r"|rquickjs.*|wasm-interpreter|cranelift-interpreter|libcontainer-wasm.*|containerd-shim-wasm.*)$"
)

# What looks like an engine and is none, with the reason.
ALLOWED = {
    "wasmtime-internal-core": "error and allocation helpers without any engine, which Cranelift's own crates need",
    "wasmtime-internal-jit-icache-coherence": "what cranelift-jit needs on processors other than x86-64: system calls",
}

# Cranelift 0.N is released with wasmtime N - 87, with the same patch number.
LINES_APART = 87

# Packages of the database whose advisories may concern us although we do not depend on them.
FOREIGN_PACKAGES = ["wasmtime", "wasmtime-cranelift", "wasmtime-wasi", "wasmtime-wasi-http"]


class GuardError(Exception):
    """Why a guard fails."""


def release_tree(root=ROOT):
    """Names of all crates that are compiled into what we ship, or run while it is built."""
    command = [
        "cargo", "tree", "--locked", "--workspace", "--all-features", "--target", "all",
        "--edges", "normal,build", "--prefix", "none", "--format", "{p}",
    ]
    text = subprocess.run(command, cwd=root, check=True, text=True, stdout=subprocess.PIPE).stdout
    return sorted({line.split()[0] for line in text.splitlines() if line.strip()})


def foreign_engines(crates):
    """Those of the crates that are engines and not allowed."""
    return [name for name in crates if ENGINES.match(name) and name not in ALLOWED]


def check_tree():
    """The guard `tree`."""
    crates = release_tree()
    if "cranelift-codegen" not in crates:
        raise GuardError(f"the release tree has no cranelift-codegen: is it read right? {crates}")
    if found := foreign_engines(crates):
        raise GuardError(f"other engines among the release dependencies: {', '.join(found)}")
    for name in ALLOWED:
        if name not in crates:
            raise GuardError(f"{name} is allowed but no longer a dependency: strike it off the list")
    print(f"guard: no engine but ours among {len(crates)} release dependencies")


def version(text):
    """A version as numbers, without what follows a hyphen or plus."""
    parts = re.split(r"[-+]", text.strip(), maxsplit=1)[0].split(".")
    numbers = [int(part) for part in parts]
    return tuple(numbers + [0] * (3 - len(numbers)))


def locked(name, lock_file=ROOT / "Cargo.lock"):
    """Versions of a package in a lock file."""
    packages = tomllib.loads(lock_file.read_text())["package"]
    return [package["version"] for package in packages if package["name"] == name]


def wasmtime_release(cranelift):
    """The wasmtime release that carries a Cranelift version."""
    major, line, patch = version(cranelift)
    if major != 0:
        raise GuardError(f"cranelift-codegen {cranelift}: how releases map to wasmtime must be read anew")
    return (line - LINES_APART, 0, patch)


def our_release():
    """Our place among wasmtime's releases, by two pieces of evidence that must agree."""
    cranelift = locked("cranelift-codegen")
    if len(cranelift) != 1:
        raise GuardError(f"one version of cranelift-codegen is expected in Cargo.lock, found {cranelift}")
    release = wasmtime_release(cranelift[0])
    helper = [version(text) for text in locked("wasmtime-internal-core")]
    if helper and helper != [release]:
        raise GuardError(f"cranelift-codegen {cranelift[0]} should be of wasmtime {dotted(release)}, "
                         f"but wasmtime-internal-core is {', '.join(map(dotted, helper))}")
    return cranelift[0], release


def dotted(release):
    """A version as text."""
    return ".".join(map(str, release))


def has_fix(release, fixed):
    """Whether a release has a fix that first came with the releases `fixed`, one for each line."""
    fixes = [version(text) for text in fixed]
    # Versions before 1.0 have their line in the second number.
    line = lambda v: v[:2] if v[0] == 0 else v[:1]
    same = [fix for fix in fixes if line(fix) == line(release)]
    if same:
        return release >= min(same)
    return line(release) > max(line(fix) for fix in fixes)


@dataclass
class Report:
    """What a comparison found."""

    lines: list = field(default_factory=list)
    faults: list = field(default_factory=list)


def check_reviewed(entries, release):
    """Compares the reviewed list with our release."""
    report = Report()
    for entry in entries:
        names = " ".join([entry["id"], *entry.get("aliases", [])])
        fixed = has_fix(release, entry["fixed"])
        if entry["verdict"] == "applies" and not fixed:
            report.faults.append(f"{names}: {entry['title']}: fixed in {', '.join(entry['fixed'])}")
        elif entry["verdict"] == "not ours" and not entry.get("reason"):
            report.faults.append(f"{names}: not ours, but without a reason")
        elif entry["verdict"] not in ("applies", "not ours"):
            report.faults.append(f"{names}: unknown verdict {entry['verdict']!r}")
        elif not fixed:
            report.lines.append(f"{names}: {entry['title']}: not ours: {entry['reason']}")
    return report


def database_entries(folder, packages):
    """The advisories of a RustSec database on some packages."""
    for package in packages:
        for path in sorted((folder / "crates" / package).glob("RUSTSEC-*.md")):
            match = re.search(r"```toml\n(.*?)```", path.read_text(), re.DOTALL)
            if not match:
                raise GuardError(f"{path}: no advisory in it")
            data = tomllib.loads(match.group(1))
            if not data["advisory"].get("withdrawn"):
                yield data


def satisfies(release, requirement):
    """Whether a release satisfies a requirement such as `>= 36.0.7, < 37.0.0`."""
    for term in requirement.split(","):
        match = re.fullmatch(r"\s*(>=|<=|>|<|=|\^|~)?\s*([0-9][0-9.]*)[^\s]*\s*", term)
        if not match:
            raise GuardError(f"cannot read the requirement {requirement!r}")
        operator, wanted = match.group(1) or "^", version(match.group(2))
        holds = {
            ">=": release >= wanted, "<=": release <= wanted, ">": release > wanted,
            "<": release < wanted, "=": release == wanted,
            "^": release >= wanted and release[0] == wanted[0],
            "~": release >= wanted and release[:2] == wanted[:2],
        }[operator]
        if not holds:
            return False
    return True


def check_database(folder, entries, release):
    """Compares a database with our release and with what has been reviewed."""
    report = Report()
    verdicts = {name: entry["verdict"] for entry in entries
                for name in [entry["id"], *entry.get("aliases", [])]}
    count = 0
    for data in database_entries(folder, FOREIGN_PACKAGES):
        count += 1
        advisory, versions = data["advisory"], data.get("versions", {})
        names = [advisory["id"], *advisory.get("aliases", [])]
        good = [*versions.get("patched", []), *versions.get("unaffected", [])]
        if any(satisfies(release, requirement) for requirement in good):
            continue
        known = {verdicts[name] for name in names if name in verdicts}
        if known == {"not ours"}:
            report.lines.append(f"{' '.join(names)}: affects wasmtime {dotted(release)}, reviewed: not ours")
        else:
            state = "applies to us" if known else "not reviewed"
            report.faults.append(f"{' '.join(names)} ({advisory['package']}): {state}, patched in {good}")
    if not count:
        raise GuardError(f"{folder} holds no advisory on {FOREIGN_PACKAGES[0]}: is it RustSec's database?")
    report.lines.append(f"{count} advisories of the database {folder} compared")
    return report


def fetched_database():
    """The database that `cargo deny fetch` left, if it did."""
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    found = sorted(path.parent for path in cargo.glob("advisory-db*/*/crates") if path.is_dir())
    return found[0] if found else None


def database():
    """The folder of a RustSec database, if there is one on this machine."""
    if named := os.environ.get("RUSTSEC_DB"):
        if not (Path(named) / "crates").is_dir():
            raise GuardError(f"RUSTSEC_DB={named} holds no RustSec database (no folder crates in it)")
        return Path(named)
    return fetched_database()


def check_own_crates():
    """Advisories on the crates of our lock file itself: cargo-deny's work, with what it fetched."""
    if not fetched_database():
        print("guard: NOT checked by cargo-deny: `cargo deny fetch` has left no database here")
        return
    subprocess.run(["cargo", "deny", "--all-features", "check", "advisories", "--disable-fetch"],
                   cwd=ROOT, check=True)


def check_advisories():
    """The guard `advisories`."""
    cranelift, release = our_release()
    data = tomllib.loads((HERE / "advisories.toml").read_text())
    entries = data["advisory"]
    print(f"guard: Cranelift {cranelift} is of wasmtime {dotted(release)}")
    reports = [check_reviewed(entries, release)]
    applying = sum(entry["verdict"] == "applies" for entry in entries)
    print(f"guard: {len(entries)} advisories reviewed until {data['reviewed']}, {applying} of them "
          "on code that we ship")
    folder = database()
    if folder:
        reports.append(check_database(folder, entries, release))
    else:
        print("guard: NOT compared with RustSec's database: there is none on this machine "
              "(give its folder in RUSTSEC_DB)")
    for line in (line for report in reports for line in report.lines):
        print(f"guard: {line}")
    check_own_crates()
    if faults := [fault for report in reports for fault in report.faults]:
        raise GuardError("advisories that concern us:\n  " + "\n  ".join(faults))


def main(args):
    """Runs a guard."""
    guards = {"tree": check_tree, "advisories": check_advisories}
    if len(args) != 1 or args[0] not in guards:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        guards[args[0]]()
    except (GuardError, OSError, subprocess.CalledProcessError, tomllib.TOMLDecodeError) as error:
        print(f"guard: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
