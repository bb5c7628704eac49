#!/usr/bin/env python3
"""House check: what must not stand in the source. Prints file:line and the remedy, exits 1 on a finding.

Looks at code with comments and literals blanked (banned calls, environment, globals of style) and at the raw text (marks
of unfinished work, tabs, line ends, plain ASCII). `--selftest` checks the checker.
"""
import re
import sys

import c_source

# Each row: pattern in code, why and what instead, paths where it is allowed.
CODE_ROWS = [
    (r"\b(?:strcpy|stpcpy|strcat|sprintf|vsprintf|gets)\s*\(", "writes without a bound: use nt_strbuf or snprintf", ()),
    (r"\bstrtok\s*\(", "keeps hidden state: use strcspn or strchr", ()),
    (r"\b(?:atoi|atol|atoll|atof)\s*\(", "takes nonsense for 0: use strtoll or strtod and check the end", ()),
    (r"\b(?:rand|srand|random|drand48)\s*\(", "is not reproducible across machines: use nt_philox", ()),
    (r"\b(?:secure_)?getenv\s*\(", "the environment is read in src/core/env.c only", ("src/core/env.c", "tests/")),
    (r"\bsetlocale\s*\(", "changes how numbers are read and written", ()),
    (r"\b(?:alloca)\s*\(", "has no failure: use an arena or a fixed array", ()),
    (r"\btypedef\s+struct\b", "hides a struct: write struct nt_x", ()),
    (r"\bassert\s*\(", "vanishes with NDEBUG: use NT_CHECK", ("tests/",)),
]
RAW_ROWS = [
    (r"\b(?:TODO|FIXME|XXX|HACK|WIP)\b", "unfinished work belongs to the issue tracker", ()),
    (r"^[ \t]*#[ \t]*if[ \t]+0\b", "dead code: the history keeps it", ()),
    (r"\t", "a tab: indent with 4 spaces", ()),
    (r"[ \t]+$", "blanks at the end of the line", ()),
    (r"\r", "a carriage return: end lines with a line feed only", ()),
    (r"[^\x00-\x7f]", "not ASCII: write \\x escapes in literals", ()),
]
# What the header comment of a kernel says, beside what it computes.
KERNEL_WORDS = [("Layout", "of its operands"), ("Roofline", "and what bounds it"), ("byte", "that it moves"),
                ("FLOP", "that it computes"), ("xpected", "share of the bound, and why"), ("%", "of the bound")]
C_FOLDERS = ["src", "kernels", "tests", "tools"]
# Marks of unfinished work are looked for in scripts, job files and texts as well.
TEXT_FOLDERS = ["src", "kernels", "jobs", "configs", "data", "tools", "tests", "docs", ".ci", ".github"]
TEXT_EXTENSIONS = (".c", ".h", ".def", ".py", ".sh", ".sbatch", ".cfg", ".md", ".txt", ".cmake", ".yml", ".yaml")


def findings(path, text, rows):
    out = []
    for pattern, why, allowed in rows:
        if any(path.startswith(a) for a in allowed):
            continue
        for match in re.finditer(pattern, text, re.M):
            shown = match.group(0).strip()
            out.append("%s:%d: %s %s" % (path, c_source.line_of(text, match.start()), ascii(shown)[1:-1], why))
    return list(dict.fromkeys(out))


def check_c(path, text):
    out = findings(path, c_source.blank(text, keep=("directive",)), CODE_ROWS) + findings(path, text, RAW_ROWS)
    if text and not text.endswith("\n"):
        out.append("%s: no line feed at the end of the file" % path)
    return out


def check_kernel(path, text):
    head = text.split("*/")[0]
    return ["%s:1: the header comment does not say '%s' %s" % (path, word, what)
            for word, what in KERNEL_WORDS if word not in head]


def selftest():
    bad = ("x = atoi(s); // strcpy(a, b)\nchar *p = getenv(\"A\");\nputs(\"strcat(\");\n#define B sprintf(a, b)\n"
           "typedef struct { int a; } t;\n#if 0\n#endif\n\tint i; \n/* TO" "DO */\n")
    said = check_c("src/io/x.c", bad)
    lines = sorted(int(s.split(":")[1]) for s in said)
    assert lines == [1, 2, 4, 5, 6, 8, 8, 9], said
    assert check_c("src/core/env.c", "char *p = getenv(name);\n") == []
    assert check_c("src/io/x.c", "int i; /* \xe4 */\n") and check_c("src/io/x.c", "int i;")
    assert check_c("src/io/x.c", "nt_strcpy_like(my_atoi(x)); fgets(a, 1, f); snprintf(a, 1, b);\n") == []
    head = "/* Sums. Layout: x [n]. Roofline: 4 bytes an element, 1 FLOP; expected 90 %, as a copy. */\n"
    assert check_kernel("kernels/x.cu", head) == [] and len(check_kernel("kernels/x.cu", "/* a */ Layout %\n")) == 6
    print("selftest ok")


def main():
    if sys.argv[1:] == ["--selftest"]:
        selftest()
        return 0
    out = []
    for path in c_source.files(C_FOLDERS, (".c", ".h", ".def")):
        out += check_c(path, c_source.read(path))
    for path in c_source.files(["kernels"], (".cu",)):
        out += check_kernel(path, c_source.read(path))
    own = ("tools/check_source.py",)
    for path in c_source.files(TEXT_FOLDERS, TEXT_EXTENSIONS):
        if not path.endswith((".c", ".h", ".def")) and path not in own:
            out += findings(path, c_source.read(path), RAW_ROWS[:1])
    for line in out:
        print(line, file=sys.stderr)
    return 1 if out else 0


sys.exit(main())
