/* The answers of commands, line by line. */
#include "cmd.h"
#include "strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void nt_print(const char *fmt, ...) {
    struct nt_strbuf line = NT_STRBUF_INIT;
    va_list args;
    char *text = NULL;
    va_start(args, fmt);
    const int n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n < 0) nt_bug("no memory for a line of \"%s\"", fmt);
    nt_strbuf_add_shown(&line, text, (size_t)n);
    nt_strbuf_addc(&line, '\n');
    (void)fwrite(line.data, 1, line.len, stdout);
    nt_strbuf_release(&line);
    free(text);
}
