#!/usr/bin/env python3
"""Registers, spills and static shared memory of every kernel against the committed table budgets.txt.

    budgets.py check|write CUDA_DIR

CUDA_DIR: the build's cuda/, where *.ptxas.txt are what ptxas -v said. A kernel may take SLACK registers more than its
row (ptxas versions differ by a few); spills and local memory must be 0; shared memory must be as the row says. A kernel
without a row, a row without a kernel, and fewer registers than SLACK below the row fail with the command that rewrites
the table: the table is what the code is. Another release of CUDA than the table's: exit 77, nothing is compared.
"""
import glob
import os
import re
import sys

SLACK = 8
TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "budgets.txt")
HEAD = """# CUDA %s
# Registers and bytes of static shared memory of each kernel, from ptxas -v; spills are 0 everywhere.
# Written by tools/update_gpu_numbers.sh, checked by tests/gpuemu/budgets.py.
# kernel arch registers shared
"""
UPDATE = "tools/update_gpu_numbers.sh"


def parse(text):
    """{(kernel, arch): [registers, shared, spill and stack bytes]}"""
    found, key = {}, None
    for line in text.split("\n"):
        entry = re.search(r"Compiling entry function '(\w+)' for '(\w+)'", line)
        if entry:
            key = (entry.group(1), entry.group(2))
            found[key] = [0, 0, 0]
        elif key and "spill" in line:
            found[key][2] = sum(int(n) for n in re.findall(r"(\d+) bytes", line))
        elif key and "Used" in line:
            found[key][0] = int(re.search(r"Used (\d+) registers", line).group(1))
            shared = re.search(r"(\d+) bytes smem", line)
            found[key][1] = int(shared.group(1)) if shared else 0
    return found


def measured(folder):
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.ptxas.txt"))):
        with open(path, encoding="utf-8") as f:
            found.update(parse(f.read()))
    if not found:
        raise SystemExit("no *.ptxas.txt in '%s': build the target nt_cuda_ptx first" % folder)
    return found


def release(folder):
    """Of the CUDA that compiled the kernels, as its PTX says; counts.py needs it too."""
    for path in sorted(glob.glob(os.path.join(folder, "*.ptx"))):
        with open(path, encoding="utf-8") as f:
            found = re.search(r"release ([0-9.]+)", f.read(1000))
        if found:
            return found.group(1)
    raise SystemExit("no *.ptx in '%s': build the target nt_cuda_ptx first" % folder)


def must_be_release(path, folder):
    with open(path, encoding="utf-8") as f:
        wanted = re.match(r"# CUDA ([0-9.]+)\n", f.read(100)).group(1)
    if wanted != release(folder):
        print("skipped: the table is of CUDA %s, this build of %s" % (wanted, release(folder)))
        sys.exit(77)


def read_table(path):
    rows = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            words = line.split("#")[0].split()
            if words:
                rows[(words[0], words[1])] = [int(words[2]), int(words[3])]
    return rows


def spills(found):
    return ["%s %s: %d bytes of spills and stack, must be 0" % (*key, row[2]) for key, row in sorted(found.items())
            if row[2] > 0]


def compare(found, rows):
    said = spills(found)
    for key in sorted(set(found) | set(rows)):
        name = "%s %s" % key
        if key not in rows:
            said.append("%s: no row in the table; %s adds it" % (name, UPDATE))
        elif key not in found:
            said.append("%s: the table has a row and the build no such kernel; %s drops it" % (name, UPDATE))
        elif found[key][0] > rows[key][0] + SLACK:
            said.append("%s: %d registers, the table allows %d + %d" % (name, found[key][0], rows[key][0], SLACK))
        elif found[key][0] < rows[key][0] - SLACK:
            said.append("%s: %d registers, the table has %d; %s keeps the gain" % (name, found[key][0], rows[key][0],
                                                                                    UPDATE))
        elif found[key][1] != rows[key][1]:
            said.append("%s: %d bytes of shared memory, the table has %d; %s takes them over" %
                        (name, found[key][1], rows[key][1], UPDATE))
    return said


def write(found, path, cuda):
    with open(path, "w", encoding="utf-8") as f:
        f.write(HEAD % cuda)
        for key, row in sorted(found.items()):
            f.write("%s %s %d %d\n" % (*key, row[0], row[1]))


def selftest():
    """Each rule against a table that breaks it."""
    text = ("ptxas info    : Compiling entry function 'a' for 'sm_80'\n"
            "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\nptxas info    : Used 40 registers, used 1 barriers, 128 bytes smem, 456 bytes cmem[0]\n")
    found, key = parse(text), ("a", "sm_80")
    assert found == {key: [40, 128, 0]}, found
    assert compare(found, {key: [40, 128]}) == []
    for rows in ({}, {key: [40 - SLACK - 1, 128]}, {key: [40 + SLACK + 1, 128]}, {key: [40, 64]},
                 {key: [40, 128], ("b", "sm_80"): [1, 0]}):
        assert len(compare(found, rows)) == 1, rows
    assert len(compare(parse(text.replace("0 bytes spill stores", "8 bytes spill stores")), {key: [40, 128]})) == 1


def main(argv):
    if len(argv) != 3 or argv[1] not in ("check", "write"):
        raise SystemExit(__doc__)
    selftest()
    found = measured(argv[2])
    if argv[1] == "write":
        write(found, TABLE, release(argv[2]))
        said = spills(found)
    else:
        must_be_release(TABLE, argv[2])
        said = compare(found, read_table(TABLE))
    print("\n".join(said + ["%d kernels, %d findings" % (len(found), len(said))]))
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
