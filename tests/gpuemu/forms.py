#!/usr/bin/env python3
"""Every form of instruction that nvcc made of our kernels must stand in a self-test of the emulator.

    forms.py PTX_DIR

PTX_DIR: the build's folder of *.ptx of kernels/. A form is an opcode with its qualifiers. Types of one size are one form
for what only moves bits, as are hints of caches and columns of a wgmma, whose fragments repeat. Searched are the texts
of test_*.c and test_*.h, where %s and %d of a format stand for anything, and the inline PTX of kernels/.
"""
import glob
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
FORM = r"[a-z][a-z0-9_]*(?:\.[a-zA-Z0-9_:%]+)+"
# What has no result to compare: hints, and what ends or delays a thread.
NO_RESULT = re.compile(r"(ret|exit|trap|bra|nanosleep|prefetch|setmaxnreg)\b")
MOVES = re.compile(r"(ld|st|mov|selp)\.")
ALIKE = {"f32": "b32", "u32": "b32", "s32": "b32", "f64": "b64", "u64": "b64", "s64": "b64", "u16": "b16", "u8": "b8"}


def normal(form):
    parts = [p for p in form.split(".") if p not in ("uni", "cs", "cg", "wb", "nc", "aligned")]
    if MOVES.match(form):
        parts = [ALIKE.get(p, p) for p in parts]
    if parts[0] == "wgmma":
        parts = [re.sub(r"^m64n(\d+|%d)k", "m64nNk", p) for p in parts]
    return ".".join(parts)


def used(folder):
    """{form: a file that has it} of the kernels."""
    forms = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.ptx"))):
        with open(path, encoding="utf-8") as f:
            for statement in re.split(r"[;\n{}]", f.read()):
                m = re.match(r"\s*(?:@!?%?\w+\s+)?(" + FORM + r")\s", statement)
                if m and not NO_RESULT.match(m.group(1)):
                    forms.setdefault(normal(m.group(1)), os.path.basename(path))
    return forms


def tested():
    """Regular expressions of the forms in the self-tests."""
    text = ""
    for path in glob.glob(os.path.join(HERE, "test_*.[ch]")) + glob.glob(os.path.join(HERE, "kernels", "*.cu")):
        with open(path, encoding="utf-8") as f:
            text += re.sub(r'"\s*\n?\s*"', "", f.read().replace("\\n", " "))  # parts of one string
    forms = {normal(form) for form in re.findall(FORM, text)}
    return [re.compile(re.sub(r"%[sd]", r"[\\w.:]*", re.escape(form).replace("\\%", "%")) + "$") for form in forms]


def main():
    kernels, tests = used(sys.argv[1]), tested()
    missing = sorted(form for form in kernels if not any(t.match(form) for t in tests))
    for form in missing:
        print("FAIL %s (%s): no test_*.c has it: add a row to test_ptx.c or test_lanes.c" % (form, kernels[form]))
    print("%d forms of instructions, %d without a test" % (len(kernels), len(missing)))
    return 1 if missing or not kernels else 0


if __name__ == "__main__":
    sys.exit(main())
