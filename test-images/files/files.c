// Works through the file operations of WASI in the directory given as argument and prints one
// line for each, the same in every language (expected.txt). With `--read-only DIR` it expects a
// read-only directory that holds seed.txt (expected-read-only.txt).
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *name_of(int error) {
    switch (error) {
    case EACCES: return "EACCES";
    case EEXIST: return "EEXIST";
    case EISDIR: return "EISDIR";
    case ENOENT: return "ENOENT";
    case ENOTDIR: return "ENOTDIR";
    case ENOTEMPTY: return "ENOTEMPTY";
    case EPERM: return "EPERM";
    case EROFS: return "EROFS";
    default: return strerror(error);
    }
}

// Prints how a call ended that returns a negative number on failure.
static void report(const char *step, int result) {
    printf("%s: %s\n", step, result < 0 ? name_of(errno) : "ok");
}

static int write_file(const char *path, int flags, const char *text) {
    int fd = open(path, O_WRONLY | flags, 0644);
    if (fd < 0) return -1;
    ssize_t put = write(fd, text, strlen(text));
    return close(fd) < 0 || put != (ssize_t)strlen(text) ? -1 : 0;
}

static void show_read(const char *step, const char *path, off_t from, size_t most) {
    char text[64];
    int fd = open(path, O_RDONLY);
    if (fd < 0 || lseek(fd, from, SEEK_SET) < 0) {
        report(step, -1);
        return;
    }
    ssize_t got = read(fd, text, most < sizeof text ? most : sizeof text);
    if (got < 0) {
        report(step, -1);
    } else {
        printf("%s: \"", step);
        for (ssize_t i = 0; i < got; i++) text[i] == '\n' ? (void)fputs("\\n", stdout) : (void)putchar(text[i]);
        puts("\"");
    }
    close(fd);
}

static void show_stat(const char *step, const char *path, int (*how)(const char *, struct stat *)) {
    struct stat at;
    if (how(path, &at) < 0) {
        report(step, -1);
    } else if (S_ISREG(at.st_mode)) {
        printf("%s: file, %lld bytes\n", step, (long long)at.st_size);
    } else {
        printf("%s: %s\n", step, S_ISLNK(at.st_mode) ? "symlink" : S_ISDIR(at.st_mode) ? "directory" : "other");
    }
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void show_list(const char *step, const char *path) {
    char *names[64];
    size_t count = 0;
    DIR *dir = opendir(path);
    if (!dir) {
        report(step, -1);
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(dir)) && count < 64)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) names[count++] = strdup(entry->d_name);
    closedir(dir);
    qsort(names, count, sizeof *names, by_name);
    printf("%s:", step);
    for (size_t i = 0; i < count; i++) printf(" %s", names[i]);
    puts(count ? "" : " (empty)");
}

static void read_only(void) {
    show_read("read seed.txt", "seed.txt", 0, 64);
    show_stat("stat seed.txt", "seed.txt", stat);
    show_list("list .", ".");
    report("open seed.txt for writing", open("seed.txt", O_WRONLY));
    report("write new.txt", write_file("new.txt", O_CREAT | O_TRUNC, "new\n"));
    report("mkdir new", mkdir("new", 0755));
    report("rename seed.txt to new.txt", rename("seed.txt", "new.txt"));
    report("symlink new to seed.txt", symlink("seed.txt", "new"));
    report("remove seed.txt", unlink("seed.txt"));
    show_read("read seed.txt", "seed.txt", 0, 64);
}

static void read_write(const char *dir) {
    report("mkdir work", mkdir("work", 0755));
    report("mkdir work again", mkdir("work", 0755));
    if (chdir("work") < 0) {
        fprintf(stderr, "files: cannot work in %s/work: %s\n", dir, strerror(errno));
        exit(1);
    }
    report("write a.txt", write_file("a.txt", O_CREAT | O_EXCL, "hello world\n"));
    show_stat("stat a.txt", "a.txt", stat);
    report("append a.txt", write_file("a.txt", O_APPEND, "and more\n"));
    show_read("read a.txt", "a.txt", 0, 64);
    show_read("read a.txt from 6", "a.txt", 6, 5);
    struct timespec times[2] = {{1000000000, 0}, {1000000000, 0}};
    report("set time of a.txt", utimensat(AT_FDCWD, "a.txt", times, 0));
    struct stat at;
    if (stat("a.txt", &at) < 0) report("stat time of a.txt", -1);
    else printf("stat time of a.txt: %lld\n", (long long)at.st_mtim.tv_sec);
    report("rename a.txt to b.txt", rename("a.txt", "b.txt"));
    show_read("read a.txt", "a.txt", 0, 64);
    report("hard link b.txt to c.txt", link("b.txt", "c.txt"));
    show_read("read c.txt", "c.txt", 0, 64);
    report("symlink link to b.txt", symlink("b.txt", "link"));
    char target[64] = "";
    if (readlink("link", target, sizeof target - 1) < 0) report("readlink link", -1);
    else printf("readlink link: %s\n", target);
    show_stat("stat link", "link", stat);
    show_stat("lstat link", "link", lstat);
    report("truncate b.txt to 5", truncate("b.txt", 5));
    show_read("read c.txt", "c.txt", 0, 64);
    report("mkdir sub", mkdir("sub", 0755));
    report("write sub/d.txt", write_file("sub/d.txt", O_CREAT, "d\n"));
    show_list("list .", ".");
    show_list("list sub", "sub");
    report("remove sub as a file", unlink("sub"));
    report("rmdir sub", rmdir("sub"));
    report("remove sub/d.txt", unlink("sub/d.txt"));
    report("rmdir sub", rmdir("sub"));
    show_list("read b.txt as a directory", "b.txt");
    report("remove link", unlink("link"));
    report("remove c.txt", unlink("c.txt"));
    report("remove b.txt", unlink("b.txt"));
    show_list("list .", ".");
    if (chdir("..") < 0) report("leave work", -1);
    report("rmdir work", rmdir("work"));
    show_stat("stat work", "work", stat);
}

int main(int argc, char **argv) {
    int only_read = argc > 1 && !strcmp(argv[1], "--read-only");
    const char *dir = argc > 1 + only_read ? argv[1 + only_read] : "/data";
    if (chdir(dir) < 0) {
        fprintf(stderr, "files: cannot use %s: %s\n", dir, strerror(errno));
        return 1;
    }
    if (only_read) read_only();
    else read_write(dir);
    return 0;
}
