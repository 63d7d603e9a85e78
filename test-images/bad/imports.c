// Imports a function that no WASI host has.
__attribute__((import_module("env"), import_name("no_such_host_function"))) int missing(int);

int main(void) {
    return missing(1);
}
