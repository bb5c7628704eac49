#!/usr/bin/env python3
"""Injected bugs: every mutant of mutants.txt must be noticed by its case of test_ops, the code as it is must pass.

    run.py BUILD_DIR TEST_OPS CUDA_EMU [--only NAME] [--jobs N] -- NVCC FLAGS...
    run.py --table      only whether every row still applies, in no time: a change of a kernel may take its text away

A mutant is one replacement in one file of kernels/, which must apply exactly once. A device file: the named .cu alone
is compiled to PTX, and the emulator takes it in place of the embedded image (option ptx). A host file: its object is
compiled as compile_commands.json says and linked in front of the libraries. Caught: test_ops fails and says what the
row expects. Everything is written below BUILD_DIR/tests/gpuemu/mutants.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.abspath(os.path.join(HERE, "..", "..", ".."))
TABLE = os.path.join(HERE, "mutants.txt")
TIMEOUT = 120
ROW = re.compile(r"^== (?P<name>\w+) \| (?P<file>[\w.]+) \| (?P<unit>[-\w.]+) \| (?P<case>[^|]+) \| (?P<emu>[^|]*) \| "
                 r"(?P<says>[^\n]+)\n<<<\n(?P<old>.*?)\n===\n(?P<new>.*?)\n?>>>\n", re.M | re.S)


class Broken(Exception):
    """The mutant could not be tried: the table or the build is at fault."""


def read_table():
    with open(TABLE, encoding="utf-8") as f:
        text = f.read()
    rows = [m.groupdict() for m in ROW.finditer(text)]
    if len(rows) != len(re.findall(r"^== ", text, re.M)):
        raise SystemExit("%s: a row is not understood" % TABLE)
    if len({r["name"] for r in rows}) != len(rows):
        raise SystemExit("%s: two mutants have one name" % TABLE)
    return rows


def run(command, cwd, env=None):
    try:
        done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=TIMEOUT, check=False, shell=isinstance(command, str))
    except subprocess.TimeoutExpired:
        return None, "no end within %d s" % TIMEOUT
    return done.returncode, done.stdout.decode("utf-8", "replace")


def must_run(what, command, cwd):
    status, output = run(command, cwd)
    if status != 0:
        raise Broken("%s failed:\n%s" % (what, output))
    return output


def mutated_text(row):
    path = os.path.join(SOURCE, "kernels", row["file"])
    with open(path, encoding="utf-8") as f:
        text = f.read()
    times = text.count(row["old"])
    if times != 1:
        raise Broken("kernels/%s has the text %d times, must be once: adjust the row" % (row["file"], times))
    return text.replace(row["old"], row["new"])


def mutated_tree(row, folder):
    """A copy of kernels/ with the replacement made."""
    kernels = os.path.join(SOURCE, "kernels")
    text = mutated_text(row)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for name in os.listdir(kernels):
        if name.endswith((".cu", ".cuh", ".h", ".def")):
            shutil.copy(os.path.join(kernels, name), folder)
    with open(os.path.join(folder, row["file"]), "w", encoding="utf-8") as f:
        f.write(text)


def build_ptx(row, args, folder):
    flags = [f for f in args.compiler[1:] if "Werror" not in f]
    arch = "compute_90a" if row["unit"].endswith("_sm90.cu") else "compute_80"
    ptx = os.path.join(folder, "mutant.ptx")
    must_run("nvcc", [args.compiler[0], *flags, "-I" + folder, "-arch=" + arch, "-ptx", "-o", ptx, row["unit"]], folder)
    return ptx


def link_command(args):
    """The shell command that links test_ops, and where it runs."""
    with open(os.path.join(args.build, "CMakeCache.txt"), encoding="utf-8") as f:
        cache = dict(re.findall(r"^(\w+):\w+=(.*)$", f.read(), re.M))
    if cache["CMAKE_GENERATOR"] == "Ninja":
        commands = must_run("ninja", [cache["CMAKE_MAKE_PROGRAM"], "-t", "commands", "test_ops"], args.build)
        return commands.rstrip().split("\n")[-1], args.build
    folder = os.path.join(args.build, "tests", "ops")
    with open(os.path.join(folder, "CMakeFiles", "test_ops.dir", "link.txt"), encoding="utf-8") as f:
        return f.read().strip(), folder


def build_host(row, args, folder):
    original = os.path.join(SOURCE, "kernels", row["file"])
    with open(os.path.join(args.build, "compile_commands.json"), encoding="utf-8") as f:
        rows = [r for r in json.load(f) if r["file"] == original]
    if len(rows) != 1:
        raise Broken("compile_commands.json has %d commands for %s" % (len(rows), original))
    words = rows[0]["command"].replace(original, os.path.join(folder, row["file"]))
    compiled = os.path.join(folder, "mutant.o")
    must_run("the C compiler", re.sub(r" -o \S+", " -o " + compiled, words) + " -Wno-error", rows[0]["directory"])
    command, where = link_command(args)
    program = os.path.join(folder, "test_ops")
    must_run("the linker", re.sub(r" -o \S+", " %s -o %s" % (compiled, program), command), where)
    return program


def try_case(args, case, emu, program, extra):
    env = dict(os.environ, NOCTURNE_CUDA_DRIVER=args.emu, NT_EMU=",".join(o for o in [emu.strip(), extra] if o))
    return run([program, "check", case, "--device", "cuda"], args.build, env)


def try_mutant(row, args):
    folder = os.path.join(args.build, "tests", "gpuemu", "mutants", row["name"])
    try:
        mutated_tree(row, folder)
        if row["file"].endswith(".c"):
            program, extra = build_host(row, args, folder), ""
        else:
            program, extra = args.test_ops, "ptx=" + build_ptx(row, args, folder)
    except Broken as e:
        return False, "cannot be tried: %s" % e
    status, output = try_case(args, row["case"], row["emu"], program, extra)
    said = re.search(row["says"], output)
    if status == 0:
        return False, "SURVIVED: %s passes" % row["case"]
    if status is None or not said:
        return False, "fails, but does not say '%s':\n%s" % (row["says"], output[:4000])
    line = next(n for n in output.split("\n") if re.search(row["says"], n))
    shutil.rmtree(folder, ignore_errors=True)
    return True, line.strip()[:160]


def try_unchanged(key, args):
    status, output = try_case(args, key[0], key[1], args.test_ops, "")
    return status == 0, "passes unchanged" if status == 0 else "fails without a mutant:\n" + output[:4000]


def check_table():
    failed = 0
    for row in read_table():
        try:
            mutated_text(row)
        except (Broken, OSError) as e:
            print("FAIL %s: %s" % (row["name"], e))
            failed += 1
    return 1 if failed else 0


def main():
    if sys.argv[1:] == ["--table"]:
        return check_table()
    own, _, compiler = " ".join(sys.argv[1:]).partition(" -- ")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("test_ops")
    parser.add_argument("emu")
    parser.add_argument("--only")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args(own.split())
    args.compiler = compiler.split()
    args.build = os.path.abspath(args.build)
    rows = [r for r in read_table() if args.only in (None, r["name"])]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        tries = {pool.submit(try_mutant, r, args): r["name"] for r in rows}
        for key in sorted({(r["case"], r["emu"]) for r in rows}):
            tries[pool.submit(try_unchanged, key, args)] = "%s %s" % key
        for done in concurrent.futures.as_completed(tries):
            good, text = done.result()
            failed += not good
            print("%-4s %s: %s" % ("ok" if good else "FAIL", tries[done].strip(), text), flush=True)
    print("%d mutants, %d runs, %d failed" % (len(rows), len(tries), failed))
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
