"""Files as a real Python uses them, in the folder that is the argument; it is left as it was, but
for `kept.txt`."""
import errno
import glob
import os
import random
import shutil
import stat
import sys

os.chdir(sys.argv[1])


def refused(act, *args, **options):
    try:
        act(*args, **options)
    except OSError as error:
        return f"{type(error).__name__} {errno.errorcode[error.errno]}"
    return "no error"


with open("text.txt", "w", encoding="utf-8") as out:
    for n in range(1000):
        out.write(f"line {n} äöü\n")
with open("text.txt", "a", encoding="utf-8") as out:
    print("appending at", out.tell() > 0)
    out.write("the end\n")
with open("text.txt", encoding="utf-8") as lines:
    lines = lines.readlines()
print(len(lines), "lines, the last is", lines[-1].strip())

content = random.Random(7).randbytes(1 << 20)
with open("binary", "w+b") as file:
    print("written", file.write(content))
    for place in random.Random(8).choices(range(len(content) - 100), k=1000):
        file.seek(place)
        assert file.read(100) == content[place : place + 100]
    file.seek(-5, os.SEEK_END)
    print("tail", file.read() == content[-5:], file.tell())
    file.truncate(100)
    print("truncated", os.fstat(file.fileno()).st_size)
    file.seek(200)
    file.write(b"!")
    file.flush()
    os.fsync(file.fileno())
with open("binary", "rb", buffering=0) as file:
    rest = file.read()
    print("hole", rest[:100] == content[:100], set(rest[100:200]), rest[200:])
descriptor = os.open("binary", os.O_RDWR | os.O_APPEND)
os.write(descriptor, b"appended")
print("pread", os.pread(descriptor, 4, 201), os.lseek(descriptor, 0, os.SEEK_CUR))
os.ftruncate(descriptor, 3)
os.close(descriptor)
print("size", os.path.getsize("binary"))

os.makedirs("tree/a/b/c")
for name in ("tree/one", "tree/a/zwei-ä", "tree/a/b/c/three"):
    with open(name, "x") as out:
        out.write(name)
for folder, folders, files in sorted(os.walk("tree")):
    print("walk", folder, sorted(folders), sorted(files))
print("glob", sorted(glob.glob("tree/**/*e*", recursive=True)))
os.rename("tree/a/b", "tree/moved")
os.replace("tree/one", "tree/moved/c/three")
print("replaced", open("tree/moved/c/three").read(), sorted(os.listdir("tree")))
shutil.copyfile("tree/moved/c/three", "copy")
print("copied", open("copy").read())
os.link("copy", "hard")
print("links", os.stat("copy").st_nlink, os.path.samefile("copy", "hard"))
os.symlink("tree/moved", "soft")
print("soft", os.readlink("soft"), stat.S_ISLNK(os.lstat("soft").st_mode), os.listdir("soft"))
os.utime("copy", ns=(1_000_000_007, 2_000_000_009))
print("times", os.stat("copy").st_mtime_ns, os.stat("hard").st_atime_ns)

os.mkdir("many")
for n in range(2000):
    open(f"many/{n:05}", "w").close()
names = sorted(entry.name for entry in os.scandir("many") if entry.is_file())
print("many", len(names), names[0], names[-1])
for name in os.listdir("many"):
    os.remove(f"many/{name}")
os.rmdir("many")

print("no such file:", refused(open, "none"))
print("exists:", refused(open, "copy", "x"))
print("is a folder:", refused(open, "tree", "w"))
print("no folder:", refused(os.listdir, "copy"))
print("not empty:", refused(os.rmdir, "tree"))
print("below a file:", refused(open, "copy/x"))
print("long name:", refused(open, "x" * 300, "w"))
print("closed:", refused(os.close, 99))

for name in ("text.txt", "binary", "copy", "hard", "soft"):
    os.remove(name)
for folder, folders, files in os.walk("tree", topdown=False):
    for name in files:
        os.remove(os.path.join(folder, name))
    os.rmdir(folder)
with open("kept.txt", "w") as out:
    out.write("by the guest\n")
print("left", sorted(os.listdir(".")))
