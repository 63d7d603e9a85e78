"""What idle containers take of a node; see density.sh.

Memory of a container is the sum of its processes' proportional set sizes (`smaps_rollup` of proc(5)): what it shares
with others counts in parts. All memory is what the whole machine has less of (`MemAvailable`), with what the kernel
needs: page tables, mounts, control groups, sockets.
"""

import argparse
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

CTR = os.environ.get("TESTBED_C21", "ctr")
PROGRAMS = pathlib.Path(__file__).parents[2] / "test-images" / "build"
WASM = "coracle.test/sleep:rootfs"
# Name, runtime, image, arguments. runwasi takes the wasm layer, whose code it keeps.
RUNTIMES = [
    ("runc, native", "io.containerd.runc.v2", "docker.io/library/testbed-hello:latest", ["/hello", "sleep"]),
    ("coracle", "io.containerd.wasm.v1", WASM, ["/app.wasm"]),
    ("runwasi with wasmtime", "io.containerd.runwasi-wasmtime.v1", WASM, ["/app.wasm"]),
]
OURS, RUNC = "coracle", "runc, native"
SETTLE = 2.0  # seconds until what a start has set off is over
WATCH = 10.0  # seconds in which wake-ups are counted
MIB = 1 << 20


def ctr(*words):
    done = subprocess.run([CTR, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"density: ctr {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def used():
    """Bytes that the machine has not available."""
    values = {}
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split(":")
        values[name] = int(value.split()[0]) << 10
    return values["MemTotal"] - values["MemAvailable"]


def settled():
    """`used()` when it has stopped falling: what has ended is freed in the background."""
    last = used()
    for _ in range(60):
        time.sleep(0.5)
        now = used()
        if last - now < 256 << 10:
            return min(last, now)
        last = now
    return last


def stat(pid):
    """The parent's pid."""
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return int(text.rsplit(")", 1)[1].split()[1])


def processes(ids):
    """The shims of these containers by their command lines, and what descends from them."""
    wanted, parents, found = set(ids), {}, set()
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parents[int(entry.name)] = stat(entry.name)
        except OSError:
            continue
        if any(word.decode(errors="replace") in wanted for word in words):
            found.add(int(entry.name))
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return sorted(found)


def pss(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def switches(pids):
    """How often all their threads have been given a processor."""
    total = 0
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    total += int(line.split()[1])
    return total


def start(runtime, number):
    """Starts one; its id and the seconds that the client took."""
    name, kind, image, arguments = runtime
    container = f"density-{os.getpid()}-{name.split()[0].rstrip(',')}-{number}"
    words = ["run", "-d", "--runtime", kind, image, container, *arguments]
    begun = time.monotonic()
    ctr(*words)
    return container, time.monotonic() - begun


def stop(ids):
    """Kills and removes containers, and waits until their shims are gone."""
    for container in ids:
        ctr("tasks", "kill", "--signal", "SIGKILL", container)
        ctr("tasks", "delete", "--force", container)
        ctr("containers", "delete", container)
    deadline = time.monotonic() + 60
    while left := processes(ids):
        if time.monotonic() > deadline:
            sys.exit(f"density: processes {left} are left of containers that were stopped")
        time.sleep(0.1)


def one(runtime):
    """Processes and threads of one container alone."""
    container, _ = start(runtime, "one")
    time.sleep(SETTLE)
    pids = processes([container])
    counted = len(pids), sum(threads(pid) for pid in pids)
    stop([container])
    return counted


def many(runtime, count, round_number):
    """What each of so many containers takes, in bytes, wake-ups a second and seconds to start."""
    before = settled()
    started = [start(runtime, f"{round_number}-{n}") for n in range(count)]
    ids = [container for container, _ in started]
    time.sleep(SETTLE)
    pids = processes(ids)
    earlier = switches(pids)
    time.sleep(WATCH)
    wakes = (switches(pids) - earlier) / WATCH / count
    took = {
        "pss": sum(map(pss, pids)) / count,
        "all": (used() - before) / count,
        "wakes": wakes,
        "start": statistics.median(seconds for _, seconds in started),
        "processes": len(pids) / count,
    }
    stop(ids)
    return took


def climb(count):
    """Starts so many of ours; the bytes that each has taken, by hundreds, and what is left afterwards."""
    runtime = next(runtime for runtime in RUNTIMES if runtime[0] == OURS)
    step = max(1, count // 10)
    before = last = settled()
    ids, growth, seconds = [], [], []
    for n in range(count):
        container, took = start(runtime, f"many-{n}")
        ids.append(container)
        seconds.append(took)
        if (n + 1) % step == 0:
            time.sleep(SETTLE)
            now = used()
            growth.append((now - last) / step)
            last = now
            print(f"density: {n + 1} containers, {growth[-1] / MIB:.2f} MB each of the last {step}", file=sys.stderr)
    total = (last - before) / count
    running = ctr("tasks", "list").count("RUNNING")
    stop(ids)
    return {"each": total, "growth": growth, "seconds": seconds, "running": running, "left": settled() - before}


def spread(values, scale=1.0):
    return f"{statistics.median(values) / scale:.2f} ({min(values) / scale:.2f} to {max(values) / scale:.2f})"


def report(options, singles, rounds, tower):
    median = lambda name, key: statistics.median(taken[key] for taken in rounds[name])
    lines = [
        "# Density",
        "",
        f"{options.containers} idle containers of each runtime at the same time, {options.rounds} rounds in random order: "
        "median (least to most). MB are 2^20 bytes.",
        "",
        "| | " + " | ".join(singles) + " |",
        "|---|" + "---|" * len(singles),
    ]
    row = lambda what, cells: lines.append(f"| {what} | " + " | ".join(cells) + " |")
    row("processes and threads of one", [f"{p} and {t}" for p, t in singles.values()])
    row("processes each", [f"{median(name, 'processes'):.2f}" for name in singles])
    row("PSS each, MB", [spread([t["pss"] for t in rounds[name]], MIB) for name in singles])
    row("all memory each, kernel included, MB", [spread([t["all"] for t in rounds[name]], MIB) for name in singles])
    row("wake-ups a second each", [spread([t["wakes"] for t in rounds[name]]) for name in singles])
    row("`ctr run -d`, ms", [spread([t["start"] for t in rounds[name]], 1e-3) for name in singles])
    count, threads_of_one = singles[OURS]
    goals = [
        ("processes of one", count, 2, "2"),
        ("threads of one", threads_of_one, 4, "4"),
        ("PSS each, MB", median(OURS, "pss") / MIB, 1.8, "1.2"),
        ("all memory each, kernel included, MB", median(OURS, "all") / MIB, 3.0, "2.0"),
        ("wake-ups a second each", median(OURS, "wakes"), 0, "0"),
        ("`ctr run -d`, to runc's", median(OURS, "start") / median(RUNC, "start"), 0.6, "0.4"),
        (f"of {options.many} at once, not started", options.many - tower["running"], 0, "0"),
    ]
    lines += ["", "| goal | measured | must | holds | aim |", "|---|---|---|---|---|"]
    for what, value, must, aim in goals:
        holds = "yes" if value <= must else "**no**"
        lines.append(f"| {what} | {value:.3f} | ≤ {must} | {holds} | {aim} |")
    growth = ", ".join(f"{part / MIB:.2f}" for part in tower["growth"])
    lines += [
        "",
        f"{options.many} of coracle at once: {tower['running']} ran, {tower['each'] / MIB:.2f} MB each; by tenths, in their "
        f"order: {growth} MB each. `ctr run -d` took {spread(tower['seconds'][:100], 1e-3)} ms for the first hundred, "
        f"{spread(tower['seconds'][-100:], 1e-3)} ms for the last. All were stopped and removed; the machine then had "
        f"{tower['left'] / MIB:.0f} MB less available than before.",
        "",
    ]
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(prog="density.sh")
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("shim/benches/report"))
    options = parser.parse_args()
    if options.quick:
        options.containers, options.rounds, options.many = 5, 1, 10
    return options


def main():
    options = parse()
    for image in [os.environ["BENCH_NATIVE_IMAGE"], str(PROGRAMS / "sleep--rootfs.tar")]:
        ctr("images", "import", "--all-platforms", image)
    singles = {}
    for runtime in RUNTIMES:
        # The first fills caches.
        one(runtime)
        singles[runtime[0]] = one(runtime)
    rounds = {runtime[0]: [] for runtime in RUNTIMES}
    for number in range(1, options.rounds + 1):
        for runtime in random.sample(RUNTIMES, len(RUNTIMES)):
            print(f"density: round {number} of {options.rounds}, {runtime[0]}", file=sys.stderr)
            rounds[runtime[0]].append(many(runtime, options.containers, number))
    tower = climb(options.many)
    text = report(options, singles, rounds, tower)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "density.md").write_text(text)
    print(text)


main()
