// Built as a reactor: it exports `_initialize` and `answer`, but no `_start`.
__attribute__((export_name("answer"))) int answer(void) {
    return 42;
}
