#!/usr/bin/env python3
"""House check: function and file lengths, unique file names. Prints the table of sizes, exits 1 over a limit.

Limits: functions 100 lines (kernels that are straight lines, and host recipes, by listed name: 400), p90 of the
functions of a folder 60 lines, files 1000 lines (kernels 1200), names of C files unique in the whole tree.
`--selftest` checks the checker.
"""
import math
import os
import sys

import c_source

FUNCTION_LIMIT, P90_LIMIT, FILE_LIMIT = 100, 60, 1000
KERNEL_FUNCTION_LIMIT, KERNEL_FILE_LIMIT = 400, 1200
GROUPS = ["src/core", "src/io", "src/comm", "src/text", "src/corpus", "src/model", "src/infer", "src/train", "src/publish", "src/cmd", "src", "kernels",
          "tests", "tools"]

# Straight lines that would only lose by being cut: file, function -> why. Each still ends at KERNEL_FUNCTION_LIMIT.
LONG_FUNCTIONS = {
}


def percentile(values, p):
    """Nearest rank: the smallest value that p of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(p * len(ordered)) - 1)] if ordered else 0


def measure(paths):
    """[(path, lines, [(name, first, length)])]"""
    rows = []
    for path in paths:
        text = c_source.read(path)
        try:
            found = c_source.functions(text)
        except ValueError as e:
            raise SystemExit("%s: %s" % (path, e))
        rows.append((path, text.count("\n"), [(n, a, b - a + 1) for n, a, b in found]))
    return rows


def table(rows):
    print("%-12s %5s %6s %9s %6s %4s %7s  %s" % ("folder", "files", "lines", "functions", "median", "p90", "longest", ""))
    for group in GROUPS:
        mine = [r for r in rows if r[0].startswith(group + "/")]
        every = [(length, name, path) for path, _, found in mine for name, _, length in found]
        if not mine:
            continue
        lengths = [e[0] for e in every]
        longest = max(every) if every else (0, "", "")
        print("%-12s %5d %6d %9d %6d %4d %7d  %s" % (group, len(mine), sum(r[1] for r in mine), len(every),
                                                  percentile(lengths, 0.5), percentile(lengths, 0.9), longest[0],
                                                  longest[1]))


def complaints(rows):
    out = []
    for path, lines, found in rows:
        kernel = path.startswith("kernels/")
        limit = KERNEL_FILE_LIMIT if kernel else FILE_LIMIT
        if lines > limit:
            out.append("%s: %d lines, at most %d: split it by task" % (path, lines, limit))
        for name, first, length in found:
            listed = (path, name) in LONG_FUNCTIONS
            limit = KERNEL_FUNCTION_LIMIT if listed else FUNCTION_LIMIT
            if length > limit:
                out.append("%s:%d: %s has %d lines, at most %d: split it%s" % (
                    path, first, name, length, limit, "" if listed else ", or list a straight line in " + __file__))
    for group in GROUPS:
        lengths = [length for path, _, found in rows if path.startswith(group + "/") for _, _, length in found]
        if percentile(lengths, 0.9) > P90_LIMIT:
            out.append("%s: p90 of the function lengths is %d, at most %d" % (group, percentile(lengths, 0.9), P90_LIMIT))
    known = {(path, name) for path, _, found in rows for name, _, length in found if length > FUNCTION_LIMIT}
    out += ["%s: %s is listed as long in %s but is not: remove the row" % (path, name, __file__)
            for path, name in sorted(set(LONG_FUNCTIONS) - known)]
    seen = {}
    for path, _, _ in rows:
        first = seen.setdefault(os.path.basename(path), path)
        if first != path:
            out.append("%s: the name exists already: %s" % (path, first))
    return out


def selftest():
    text = """/* { */ struct s { int a; };
static const int t[] = {1, 2};
#define M(x) { x
int one(int a) { return '{' + a; }

static void __attribute__((noinline)) two(void (*f)(int),
                                          int b) {
    if (b) { f(b); } // }
    const char *s = "}";
}
enum { A = sizeof(int) };
"""
    assert c_source.functions(text) == [("one", 4, 4), ("two", 6, 10)], c_source.functions(text)
    long = "void f(void) {\n" + "    g();\n" * 120 + "}\n"
    assert [f[1:] for f in c_source.functions(long)] == [(1, 122)]
    rows = [("src/a/x.c", 1001, [("f", 1, 122)]), ("src/b/x.c", 10, [])]
    said = complaints(rows)
    assert len([s for s in said if not s.startswith("kernels/")]) >= 4, said  # file, function, p90 of src, duplicate name
    assert percentile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.9) == 9 and percentile([], 0.9) == 0
    print("selftest ok")


def main():
    if sys.argv[1:] == ["--selftest"]:
        selftest()
        return 0
    rows = measure(c_source.files(["src", "kernels", "tests", "tools"], (".c", ".h", ".cu", ".cuh")))
    table(rows)
    out = complaints(rows)
    for line in out:
        print(line, file=sys.stderr)
    return 1 if out else 0


sys.exit(main())
