/* Runs one JavaScript file under QuickJS, with a function `print` and nothing else. */
#include <stdio.h>
#include <stdlib.h>

#include "quickjs.h"

static JSValue print(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
    (void)self;
    for (int i = 0; i < count; i++) {
        const char *text = JS_ToCString(context, values[i]);
        if (!text)
            return JS_EXCEPTION;
        printf("%s%s", i ? " " : "", text);
        JS_FreeCString(context, text);
    }
    putchar('\n');
    return JS_UNDEFINED;
}

static char *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    size_t capacity = 1 << 20;
    char *text = malloc(capacity);
    if (!file || !text)
        return NULL;
    *length = fread(text, 1, capacity - 1, file);
    text[*length] = 0;
    fclose(file);
    return text;
}

static int report(JSContext *context) {
    JSValue error = JS_GetException(context);
    const char *text = JS_ToCString(context, error);
    fprintf(stderr, "quickjs: %s\n", text ? text : "unknown error");
    JS_FreeCString(context, text);
    JS_FreeValue(context, error);
    return 1;
}

int main(int argc, char **argv) {
    size_t length = 0;
    char *source = argc == 2 ? read_file(argv[1], &length) : NULL;
    if (!source) {
        fprintf(stderr, "usage: quickjs FILE\n");
        return 2;
    }
    JSRuntime *runtime = JS_NewRuntime();
    JSContext *context = JS_NewContext(runtime), *pending;
    JSValue global = JS_GetGlobalObject(context);
    JS_SetPropertyStr(context, global, "print", JS_NewCFunction(context, print, "print", 1));
    JS_FreeValue(context, global);

    JSValue result = JS_Eval(context, source, length, argv[1], JS_EVAL_TYPE_GLOBAL);
    int code = JS_IsException(result) ? report(context) : 0;
    JS_FreeValue(context, result);
    for (int status; !code && (status = JS_ExecutePendingJob(runtime, &pending)) != 0;)
        if (status < 0)
            code = report(pending);
    /* The process ends here: all memory goes with it. */
    return code;
}
