#!/usr/bin/env python3
"""Memory traffic and instructions of every kernel at the fixed shapes of `test_ops count`, against counts.txt.

    counts.py check|write TEST_OPS CUDA_EMU CUDA_DIR

The emulator counts, per kernel: 32-byte sectors of global loads and stores, passes of shared loads and stores over the
banks, and executed instructions of all lanes. More sectors or passes than the row, or SLACK more instructions, fail,
and the source lines that cost most beyond the ideal (or execute most) are named. Fewer fail too, so that a gain is
kept; so do kernels without a row, rows without a kernel, and kernels of budgets.txt that no shape runs. Every row has
the ideal of the same requests beside its cost: the sectors that the bytes touched fill, the passes without a conflict.
A cost beyond WASTE times the ideal is refused, in the table or not, unless SCATTERED says why it is so. Another release
of CUDA than the table's: exit 77, nothing is compared.
"""
import collections
import json
import os
import subprocess
import sys
import tempfile

import budgets

SLACK = 0.02
WASTE = 1.5
PAIR = "a pair of value and index per row and block, rows apart: nothing beside the weights that are read"
PARTS = "a part per chunk of a row, few bytes beside the logits"
HALVES = "4 pairs of a row of an adapter's x: the other half of each sector comes with the load behind it"
CHANCE = "bins and places by the values: conflicts by chance"
SCATTERED = {  # (kernel, kind): why its lanes touch places apart
    ("nt_head_join", "global_load"): PAIR,
    ("nt_logit_edit", "global_load"): "single logits of a list", ("nt_logit_edit", "global_store"): "as its loads",
    ("nt_draw_pairs", "global_load"): "binary searches in the other ranks' lists",
    ("nt_draw_pairs", "shared_store"): "places by the values, conflicts by chance",
    ("nt_logit_penalty", "global_store"): "single logits of a list",
    ("nt_logit_pick", "global_load"): "one logit of each row",
    ("nt_logit_stats_join", "global_load"): PARTS,
    ("nt_gemm_int4_adapter_sm90_64x128", "global_load"): HALVES,
    ("nt_gemm_int4_adapter_sm90_128x128", "global_load"): HALVES,
    ("nt_gemm_int8_adapter_sm90_64x128", "global_load"): HALVES,
    ("nt_gemm_int8_adapter_sm90_128x128", "global_load"): HALVES,
    ("nt_sample_pick", "shared_load"): CHANCE, ("nt_topk_select", "shared_load"): CHANCE,
}
TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "counts.txt")
KINDS = (("global_load", "sectors"), ("global_store", "sectors"), ("shared_load", "passes"), ("shared_store", "passes"))
HEAD = """# CUDA %s
# What test_ops count costs by the emulator's count: sectors (global) and bank passes (shared), each cost/ideal.
# Written by tools/update_gpu_numbers.sh, checked by tests/gpuemu/counts.py.
# cc kernel instructions global_load global_store shared_load shared_store
"""


def measure(test_ops, emu):
    """{(cc, kernel): counters}"""
    found = {}
    for cc in ("80", "90"):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "counts.json")
            env = dict(os.environ, NOCTURNE_CUDA_DRIVER=emu, NT_EMU="cc=%s,count=%s" % (cc, path))
            done = subprocess.run([test_ops, "count"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  check=False, timeout=600)
            if done.returncode != 0:
                raise SystemExit("test_ops count failed:\n" + done.stdout.decode("utf-8", "replace"))
            with open(path, encoding="utf-8") as f:
                for line in f:
                    kernel = json.loads(line)
                    if "kernel" in kernel:  # not a device's memory
                        found[(cc, kernel["kernel"])] = kernel
    return found


def row_of(kernel):
    """[instructions, cost, ideal, cost, ideal, ...] in the order of KINDS"""
    row = [kernel["instructions"]]
    for kind, unit in KINDS:
        row += [kernel[kind][unit], kernel[kind]["ideal"]]
    return row


def read_table():
    rows = {}
    with open(TABLE, encoding="utf-8") as f:
        for line in f:
            words = line.split("#")[0].split()
            if words:
                rows[(words[0], words[1])] = [int(n) for w in words[2:] for n in w.split("/")]
    return rows


def write(found, cuda):
    with open(TABLE, "w", encoding="utf-8") as f:
        f.write(HEAD % cuda)
        for key, kernel in sorted(found.items()):
            row = row_of(kernel)
            f.write("%s %s %d %s\n" % (*key, row[0], " ".join("%d/%d" % (row[i], row[i + 1]) for i in (1, 3, 5, 7))))


def most(places, unit):
    return ["      %s:%d %d %s" % (*place, n, unit) for place, n in places.most_common(5) if n > 0]


def wasteful_lines(kernel, kind, unit):
    """Where a space costs most beyond the ideal; where it costs most at all when nothing is beyond."""
    space = kind.split("_")[0]
    beyond, cost = collections.Counter(), collections.Counter()
    for line in kernel["lines"]:
        if line["space"] == space:
            place = (line["file"], line["source_line"])
            beyond[place] += line["cost"] - line["ideal"]
            cost[place] += line["cost"]
    return most(beyond, unit + " beyond the ideal") or most(cost, unit)


def busy_lines(kernel):
    executed = collections.Counter()
    for file, line, n in kernel["executed"]:
        executed[(file, line)] += n
    return most(executed, "instructions")


def compare_kernel(name, kernel, row):
    now, said = row_of(kernel), []
    for i, (kind, unit) in enumerate(KINDS):
        cost, was, ideal = now[1 + 2 * i], row[1 + 2 * i], now[2 + 2 * i]
        if cost != was:
            said.append("%s: %d %s of %s, the table has %d, ideal %d%s" % (
                name, cost, unit, kind, was, ideal, "" if cost > was else ": a gain, " + budgets.UPDATE + " keeps it"))
            said += wasteful_lines(kernel, kind, unit) if cost > was else []
    if abs(now[0] - row[0]) > SLACK * row[0]:
        said.append("%s: %d instructions, the table has %d%s" % (
            name, now[0], row[0], "" if now[0] > row[0] else ": a gain, " + budgets.UPDATE + " keeps it"))
        said += busy_lines(kernel) if now[0] > row[0] else []
    return said


def compare(found, rows):
    said = []
    for key in sorted(set(found) | set(rows)):
        name = "cc %s %s" % key
        if key not in rows:
            said.append("%s: no row in the table; %s adds it" % (name, budgets.UPDATE))
        elif key not in found:
            said.append("%s: the table has a row, but no shape runs this kernel; %s drops it" % (name, budgets.UPDATE))
        else:
            said += compare_kernel(name, found[key], rows[key])
    return said


def wasteful(found, scattered):
    said, used = [], set()
    for (cc, name), kernel in sorted(found.items()):
        for kind, unit in KINDS:
            cost, ideal = kernel[kind][unit], kernel[kind]["ideal"]
            if cost <= WASTE * ideal:
                continue
            used.add((name, kind))
            if (name, kind) not in scattered:
                said.append("cc %s %s: %d %s of %s, %.1f times the ideal %d" % (cc, name, cost, unit, kind,
                                                                              cost / max(ideal, 1), ideal))
                said += wasteful_lines(kernel, kind, unit)
    return said + ["%s: %s is no longer beyond %.1f times the ideal: drop it from SCATTERED" % (name, kind, WASTE)
                   for name, kind in sorted(set(scattered) - used)]


def not_run(found):
    missing = {kernel for kernel, _ in budgets.read_table(budgets.TABLE)} - {kernel for _, kernel in found}
    return ["%s: no shape of tests/ops/count_ops.c runs this kernel" % kernel for kernel in sorted(missing)]


def selftest():
    """Each rule against a row that breaks it."""
    zero = {"requests": 0, "sectors": 0, "passes": 0, "ideal": 0}
    kernel = {"instructions": 1000, "global_load": dict(zero, sectors=8, ideal=4), "global_store": zero,
              "shared_load": zero, "shared_store": zero, "executed": [["a.cu", 7, 900], ["a.cu", 9, 100]],
              "lines": [{"space": "global", "file": "a.cu", "source_line": 3, "cost": 8, "ideal": 4}]}
    key, row = ("80", "a"), row_of(kernel)
    assert row == [1000, 8, 4, 0, 0, 0, 0, 0, 0], row
    assert compare({key: kernel}, {key: row}) == []
    assert compare({key: kernel}, {key: [985] + row[1:]}) == []
    assert compare({key: kernel}, {key: [970] + row[1:]})[1] == "      a.cu:7 900 instructions"
    assert compare({key: kernel}, {key: [1000, 7] + row[2:]})[1] == "      a.cu:3 4 sectors beyond the ideal"
    assert wasteful({key: kernel}, {}) == ["cc 80 a: 8 sectors of global_load, 2.0 times the ideal 4",
                                           "      a.cu:3 4 sectors beyond the ideal"]
    assert wasteful({key: kernel}, {("a", "global_load"): ""}) == []
    assert len(wasteful({}, {("a", "global_load"): ""})) == 1
    for rows in ({}, {key: row, ("80", "b"): row}, {key: [1030] + row[1:]}, {key: [1000, 9] + row[2:]}):
        assert len(compare({key: kernel}, rows)) == 1, rows


def main(argv):
    if len(argv) != 5 or argv[1] not in ("check", "write"):
        raise SystemExit(__doc__)
    selftest()
    if argv[1] == "check":
        budgets.must_be_release(TABLE, argv[4])
    found = measure(argv[2], argv[3])
    if argv[1] == "write":
        write(found, budgets.release(argv[4]))
        said = not_run(found)
    else:
        said = not_run(found) + compare(found, read_table())
    said += wasteful(found, SCATTERED)
    print("\n".join(said + ["%d kernels, %s" % (len(found), "differences above" if said else "no difference")]))
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
