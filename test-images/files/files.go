// Works through the file operations of WASI in the directory given as argument and prints one
// line for each, the same in every language (expected.txt). With `--read-only DIR` it expects a
// read-only directory that holds seed.txt (expected-read-only.txt).
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

var names = map[syscall.Errno]string{
	syscall.EACCES: "EACCES", syscall.EEXIST: "EEXIST", syscall.EISDIR: "EISDIR",
	syscall.ENOENT: "ENOENT", syscall.ENOTDIR: "ENOTDIR", syscall.ENOTEMPTY: "ENOTEMPTY",
	syscall.EPERM: "EPERM", syscall.EROFS: "EROFS",
}

func nameOf(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) && names[errno] != "" {
		return names[errno]
	}
	return err.Error()
}

func report(step string, err error) {
	if err != nil {
		fmt.Printf("%s: %s\n", step, nameOf(err))
	} else {
		fmt.Printf("%s: ok\n", step)
	}
}

func writeFile(path string, flags int, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|flags, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

func showRead(step, path string, from int64, most int64) {
	file, err := os.Open(path)
	if err != nil {
		report(step, err)
		return
	}
	defer file.Close()
	text, err := io.ReadAll(io.NewSectionReader(file, from, most))
	if err != nil {
		report(step, err)
		return
	}
	fmt.Printf("%s: \"%s\"\n", step, strings.ReplaceAll(string(text), "\n", "\\n"))
}

func showStat(step, path string, how func(string) (os.FileInfo, error)) {
	switch at, err := how(path); {
	case err != nil:
		report(step, err)
	case at.Mode().IsRegular():
		fmt.Printf("%s: file, %d bytes\n", step, at.Size())
	case at.Mode()&os.ModeSymlink != 0:
		fmt.Printf("%s: symlink\n", step)
	case at.IsDir():
		fmt.Printf("%s: directory\n", step)
	default:
		fmt.Printf("%s: other\n", step)
	}
}

func showList(step, path string) {
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		report(step, err)
		return
	}
	line := step + ":"
	for _, entry := range entries {
		line += " " + entry.Name()
	}
	if len(entries) == 0 {
		line += " (empty)"
	}
	fmt.Println(line)
}

func readOnly(dir string) {
	seed, fresh := filepath.Join(dir, "seed.txt"), filepath.Join(dir, "new.txt")
	showRead("read seed.txt", seed, 0, 64)
	showStat("stat seed.txt", seed, os.Stat)
	showList("list .", dir)
	_, err := os.OpenFile(seed, os.O_WRONLY, 0)
	report("open seed.txt for writing", err)
	report("write new.txt", writeFile(fresh, os.O_CREATE|os.O_TRUNC, "new\n"))
	report("mkdir new", os.Mkdir(filepath.Join(dir, "new"), 0o755))
	report("rename seed.txt to new.txt", os.Rename(seed, fresh))
	report("symlink new to seed.txt", os.Symlink("seed.txt", filepath.Join(dir, "new")))
	report("remove seed.txt", syscall.Unlink(seed))
	showRead("read seed.txt", seed, 0, 64)
}

func readWrite(dir string) {
	work := filepath.Join(dir, "work")
	in := func(name string) string { return filepath.Join(work, name) }
	err := os.Mkdir(work, 0o755)
	report("mkdir work", err)
	report("mkdir work again", os.Mkdir(work, 0o755))
	if _, err := os.Stat(work); err != nil {
		fmt.Fprintf(os.Stderr, "files: cannot work in %s: %v\n", work, err)
		os.Exit(1)
	}
	report("write a.txt", writeFile(in("a.txt"), os.O_CREATE|os.O_EXCL, "hello world\n"))
	showStat("stat a.txt", in("a.txt"), os.Stat)
	report("append a.txt", writeFile(in("a.txt"), os.O_APPEND, "and more\n"))
	showRead("read a.txt", in("a.txt"), 0, 64)
	showRead("read a.txt from 6", in("a.txt"), 6, 5)
	then := time.Unix(1000000000, 0)
	report("set time of a.txt", os.Chtimes(in("a.txt"), then, then))
	if at, err := os.Stat(in("a.txt")); err != nil {
		report("stat time of a.txt", err)
	} else {
		fmt.Println("stat time of a.txt:", at.ModTime().Unix())
	}
	report("rename a.txt to b.txt", os.Rename(in("a.txt"), in("b.txt")))
	showRead("read a.txt", in("a.txt"), 0, 64)
	report("hard link b.txt to c.txt", os.Link(in("b.txt"), in("c.txt")))
	showRead("read c.txt", in("c.txt"), 0, 64)
	report("symlink link to b.txt", os.Symlink("b.txt", in("link")))
	if target, err := os.Readlink(in("link")); err != nil {
		report("readlink link", err)
	} else {
		fmt.Println("readlink link:", target)
	}
	showStat("stat link", in("link"), os.Stat)
	showStat("lstat link", in("link"), os.Lstat)
	report("truncate b.txt to 5", os.Truncate(in("b.txt"), 5))
	showRead("read c.txt", in("c.txt"), 0, 64)
	report("mkdir sub", os.Mkdir(in("sub"), 0o755))
	report("write sub/d.txt", writeFile(in("sub/d.txt"), os.O_CREATE, "d\n"))
	showList("list .", work)
	showList("list sub", in("sub"))
	// os.Remove tries both kinds, so the system calls are used to see each one's answer.
	report("remove sub as a file", syscall.Unlink(in("sub")))
	report("rmdir sub", syscall.Rmdir(in("sub")))
	report("remove sub/d.txt", os.Remove(in("sub/d.txt")))
	report("rmdir sub", syscall.Rmdir(in("sub")))
	showList("read b.txt as a directory", in("b.txt"))
	report("remove link", os.Remove(in("link")))
	report("remove c.txt", os.Remove(in("c.txt")))
	report("remove b.txt", os.Remove(in("b.txt")))
	showList("list .", work)
	report("rmdir work", syscall.Rmdir(work))
	showStat("stat work", work, os.Stat)
}

func main() {
	args := os.Args[1:]
	run := readWrite
	if len(args) > 0 && args[0] == "--read-only" {
		run, args = readOnly, args[1:]
	}
	dir := "/data"
	if len(args) > 0 {
		dir = args[0]
	}
	if _, err := os.Stat(dir); err != nil {
		fmt.Fprintf(os.Stderr, "files: cannot use %s: %v\n", dir, err)
		os.Exit(1)
	}
	run(dir)
}
