"""Sorts what strace wrote of a start by process and step, up to the first instruction of the guest; see trace.sh."""

import collections
import re
import sys

LINE = re.compile(r"^(\d+) +\d+\.\d+ (.*)$")
# The end of a call that another process interrupted begins with `<...` and counts no second time.
CALL = re.compile(r"^(\w+)\(")
# What hello itself does first.
OUTPUT = re.compile(r"^(?:write|writev|pwritev2?)\(1<")

# Of each thread the steps in their order: what a step's first call looks like, what it is for, and why.
STEPS = {
    "start": [
        (r"^execve", "containerd's exec", "static: one file is mapped, no library looked for"),
        (r"^brk", "libc begins", "heap, thread, random numbers, its own path; relocated data becomes read-only"),
        (r"^poll", "Rust begins", "closed streams, SIGPIPE, a word instead of silence when the stack overflows"),
        (r"INSECURE", "command line", "random keys of its parser's map"),
        (r"^getcwd", "what containerd sent", "the bundle; 2.3's message on standard input, which no terminal sends"),
        (r"config\.json", "the pod", "an annotation tells whether the container joins a shim"),
        (r"^openat\(.*containerd/s\"", "the socket",
         "locked folder: of two starts at once one makes it; root alone may connect"),
        (r"/address", "the address", "for containerd and `delete`; written before there is a process to take back"),
        (r"/dev/null", "the server", "a fork; its null device is opened where a failure is still heard of"),
        (r"^write\(1<", "the answer", "the address again"),
        (r"^sigaltstack\(\{ss_sp=NULL", "the end", "Rust's stack for signals"),
    ],
    "server": [
        (r"^set_robust_list", "streams let go", "`start` is read until nobody holds the other end; then the lock"),
        (r"/log", "the log", "containerd's FIFO"),
        (r"^setsid", "session and score", "outlives who started containerd; dies after guests, before containerd"),
        (r"^epoll_create1", "event loop", "epoll, what wakes it, the socket, SIGTERM and SIGINT"),
        (r"^epoll_wait", "containerd connects", "Create arrives"),
        (r"^open\(.*/cache\"", "the cache", "its two folders are root's alone, and code can be run from there"),
        (r"^rt_sigaction\(SIGRT_1", "a thread beside",
         "mounting and finding may hang, while State must answer; the loop waits"),
        (r"^statx\(.*/std", "streams", "each output: what it is, a reader to keep, a writer for the guest"),
        (r"/mountinfo", "which cgroups there are", "mount table and own groups"),
        (r"^openat\(.*guest\.json\.new", "its state file", "a shim killed from here on leaves a trace of what it makes"),
        (r"^mkdir\(\"/sys", "the container's cgroup",
         "v1: a folder in each of nine hierarchies, and a cpuset that inherits by hand"),
        (r"/tasks|^open\(\"/dev/null", "the guest's process",
         "v1: nine files to enter by; the executable behind a read-only mount; a channel; `clone3`; what it got is closed"),
        (r"^openat\(.*/stat\"", "state file again", "the pid, and when it was born"),
        (r"^sendto\(\d+<[^>]*>, \"\\1\", 1,", "from here on both talk",
         "plan and ready; Create's answer and event; Start, the code's descriptor, started; Start's answer and event"),
    ],
    "its thread": [
        (r"^rseq", "a thread begins", "name, and a stack for signals"),
        (r"config\.json", "the spec", "read once; random keys of its maps"),
        (r"^mkdir\(.*rootfs", "the root file system", "containerd's mounts, on a folder that it has made"),
        (r"^open\(.*rootfs\"", "the module", "found without following a link of the image; its first bytes"),
        (r"^fstatfs", "its file", "an overlay's file is known by that in its folders"),
        (r"/digests/", "its digest", "kept since it was hashed once"),
        (r"^openat\(\d+<[^>]*/cache>", "the entry", "its attributes, against those of when it was verified"),
        (r"^write\(\d+<anon", "done", "wakes the loop, waits for more work"),
    ],
    "guest": [
        (r"/tasks>|^read\(", "the cgroup entered",
         "a copy of the shim's end of the channel goes; v1: nine hierarchies, on v2 it is born there"),
        (r"^read\(", "becomes the runner", "at the shim's word; four descriptors and no more, dies with the shim; an exec "
         "leaves nothing of the shim's memory"),
        (r"^brk", "libc begins", "as above"),
        (r"^poll", "Rust begins", "as above"),
        (r"^fcntl\(3", "signals", "each number once; the first of a pid namespace would ignore what ends a program"),
        (r"^recvmsg", "the plan", "from the shim"),
        (r"PR_SET_NAME", "name, session, mask", "for `top`; of its own; modes are exact"),
        (r"memory\.", "the memory limit", "asked when memory grows, so that growing fails before the kernel kills"),
        (r"^mount\(NULL", "cut off from the host", "no mount made here reaches it"),
        (r"^open_tree", "the root", "a mount of its own, without device nodes"),
        (r"^fsopen", "seven mounts",
         "made detached with their attributes, attached to folders resolved inside the root; three are missing"),
        (r"^unshare|^fstatfs\(.*/dev>", "cgroup namespace, devices",
         "its root is the group that was entered; six nodes and five links in one folder"),
        (r"^open_tree\(.*/dev/null", "null device", "covers files; looked at"),
        (r"^openat2\(.*/proc/bus", "paths made read-only", "four are there of five"),
        (r"^openat2\(.*/proc/acpi", "paths hidden", "folders behind an empty file system, files behind null; four of ten"),
        (r"^fchdir", "the root entered", "and the host's let go"),
        (r"^open\(\"/\"", "its folders", "`/` and the working directory for WASI"),
        (r"^sendto", "parked", "Create has its answer; Start brings the code"),
        (r"^umask\(022", "rights given up",
         "41 capabilities and the end of their list, groups, user, privileges, dumps; then looked at"),
        (r"INSECURE", "the code", "the entry mapped, shared by all, and made executable"),
        (r"NOFILE", "WASI", "what streams and folders are; how many descriptors"),
        (r"^rt_sigaction\(SIGSEGV, NULL, .*sa_mask=\[SEGV", "traps", "handlers, what was there before them, their stack"),
        (r"^close\(\d+<[^>]*/cache/", "last steps", "what is used without the program's memory; started"),
        (r"^mmap\(0xf000000", "linear memory", "6 GiB of addresses, the pages wanted, the initial ones from the entry"),
    ],
}


def lines(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            match = LINE.match(line)
            if match:
                yield int(match[1]), match[2]


def ended(path):
    """Whether all processes that strace has seen have ended."""
    begun, gone = set(), set()
    try:
        for pid, text in lines(path):
            begun.add(pid)
            if text.startswith("+++ "):
                gone.add(pid)
    except FileNotFoundError:
        return False
    return bool(begun) and begun == gone


def sort(path):
    """The calls of each thread. What the guest does before its exec is its own already."""
    names = {}
    calls = {name: [] for name in STEPS}
    nameless = collections.defaultdict(list)
    for pid, text in lines(path):
        call = CALL.match(text)
        if not call:
            continue
        if not names:
            names[pid] = "start"
        if call[1] == "execveat":
            names[pid] = "guest"
            calls["guest"].extend(nameless.pop(pid, []))
        name = names.get(pid)
        if name == "guest" and OUTPUT.match(text):
            break
        (calls[name] if name else nameless[pid]).append(text)
    # A fork of `start`, and its thread.
    for texts in nameless.values():
        calls["its thread" if calls["server"] else "server"].extend(texts)
    return calls


def steps(name, texts):
    """The calls of each step. One may be left out, as on another version of cgroups."""
    found = [[] for _ in STEPS[name]]
    at = 0
    for text in texts:
        for later in range(at + 1, min(at + 3, len(found))):
            if re.search(STEPS[name][later][0], text):
                at = later
                break
        found[at].append(text)
    return found


def row(step, texts):
    _, what, why = step
    counts = collections.Counter(CALL.match(text)[1] for text in texts)
    calls = ", ".join(call if count == 1 else f"{count} {call}" for call, count in counts.items())
    return f"| {len(texts)} | {what} | {calls} | {why} |"


def main(args):
    path = args[-1]
    if "--ended" in args:
        return 0 if ended(path) else 1
    for name, texts in sort(path).items():
        print(f"{name}: {len(texts)} calls\n")
        if "--list" in args:
            print("".join(f"    {text}\n" for text in texts))
            continue
        print("| | step | calls | why |\n|--:|---|---|---|")
        for step, part in zip(STEPS[name], steps(name, texts)):
            if part:
                print(row(step, part))
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
