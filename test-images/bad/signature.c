// Imports a WASI function under its right name but with a wrong type.
__attribute__((import_module("wasi_snapshot_preview1"), import_name("fd_sync"))) double sync_(double);

int main(void) {
    return (int)sync_(1.0);
}
