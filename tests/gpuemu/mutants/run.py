#!/usr/bin/env python3
"""Injected bugs: every mutant of mutants.txt must be noticed by its case or test, the code as it is must pass.

    run.py BUILD_DIR TEST_OPS CUDA_EMU [--only NAME] [--jobs N] -- NVCC FLAGS...
    run.py --table      only whether every row still applies, in no time: a change of a kernel may take its text away

A mutant is one replacement in one file (of kernels/, or with its folder), which must apply exactly once. A device file:
the named .cu alone is compiled to PTX, and the emulator takes it in place of the embedded image (option ptx). A host
file: its object is compiled as compile_commands.json says and linked in place of the test's own one or in front of the
libraries. Caught: test_ops, or the test program of the row, fails and says what the row expects. Everything is written
below BUILD_DIR/tests/gpuemu/mutants.
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
TIMEOUT = 600  # s; the slowest case takes 20 alone, and the machine may be shared
TEST = "test: "  # in place of a case of test_ops: a test program
ROW = re.compile(r"^== (?P<name>\w+) \| (?P<file>[\w./]+) \| (?P<unit>[-\w.]+) \| (?P<case>[^|]+) \| (?P<emu>[^|]*) \| "
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


def original(row):
    return os.path.join(SOURCE, row["file"] if "/" in row["file"] else os.path.join("kernels", row["file"]))


def mutated_text(row):
    with open(original(row), encoding="utf-8") as f:
        text = f.read()
    times = text.count(row["old"])
    if times != 1:
        raise Broken("%s has the text %d times, must be once: adjust the row" % (row["file"], times))
    return text.replace(row["old"], row["new"])


def mutated(row, folder):
    return os.path.join(folder, os.path.basename(row["file"]))


def mutated_tree(row, folder):
    """A copy of what device files include, and the file with the replacement made."""
    kernels = os.path.join(SOURCE, "kernels")
    text = mutated_text(row)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for name in os.listdir(kernels):
        if name.endswith((".cu", ".cuh", ".h", ".def")):
            shutil.copy(os.path.join(kernels, name), folder)
    with open(mutated(row, folder), "w", encoding="utf-8") as f:
        f.write(text)


def build_ptx(row, args, folder):
    flags = [f for f in args.compiler[1:] if "Werror" not in f]
    arch = "compute_90a" if row["unit"].endswith("_sm90.cu") or "cc=90" in row["emu"] else "compute_80"
    ptx = os.path.join(folder, "mutant.ptx")
    must_run("nvcc", [args.compiler[0], *flags, "-I" + folder, "-arch=" + arch, "-ptx", "-o", ptx, row["unit"]], folder)
    return ptx


def target_of(case):
    return case.strip()[len(TEST):] if case.startswith(TEST) else "test_ops"


def link_command(target, args):
    """The shell command that links a test program, and where it runs."""
    with open(os.path.join(args.build, "CMakeCache.txt"), encoding="utf-8") as f:
        cache = dict(re.findall(r"^(\w+):\w+=(.*)$", f.read(), re.M))
    if cache["CMAKE_GENERATOR"] == "Ninja":
        commands = must_run("ninja", [cache["CMAKE_MAKE_PROGRAM"], "-t", "commands", target], args.build)
        return commands.rstrip().split("\n")[-1], args.build
    for folder, _, files in os.walk(os.path.join(args.build, "tests")):
        if folder.endswith(os.path.join("CMakeFiles", target + ".dir")) and "link.txt" in files:
            with open(os.path.join(folder, "link.txt"), encoding="utf-8") as f:
                return f.read().strip(), os.path.dirname(os.path.dirname(folder))
    raise Broken("the build has no target %s" % target)


OUTPUT = re.compile(r" -o (\S+)")


def program_of(case, args):
    if target_of(case) == "test_ops":
        return args.test_ops
    command, where = link_command(target_of(case), args)
    return os.path.join(where, OUTPUT.findall(command)[-1])


def build_host(row, args, folder):
    with open(os.path.join(args.build, "compile_commands.json"), encoding="utf-8") as f:
        rows = [r for r in json.load(f) if r["file"] == original(row)]
    if len(rows) != 1:
        raise Broken("compile_commands.json has %d commands for %s" % (len(rows), row["file"]))
    words = rows[0]["command"].replace(original(row), mutated(row, folder))
    here = " -I" + os.path.dirname(original(row))  # what the file includes beside itself
    compiled, was = os.path.join(folder, "mutant.o"), OUTPUT.search(words).group(1)
    must_run("the C compiler", OUTPUT.sub(" -o " + compiled, words) + here + " -Wno-error", rows[0]["directory"])
    command, where = link_command(target_of(row["case"]), args)
    program = os.path.join(folder, "program")
    if was in command.split():
        command = command.replace(" " + was + " ", " ")
    must_run("the linker", OUTPUT.sub(" %s -o %s" % (compiled, program), command), where)
    return program


def try_case(args, case, emu, program, extra):
    env = dict(os.environ, NOCTURNE_CUDA_DRIVER=args.emu, NT_EMU=",".join(o for o in [emu.strip(), extra] if o))
    if case.startswith(TEST):
        return run([program], args.build, env)
    return run([program, "check", case, "--device", "cuda"], args.build, env)


def try_mutant(row, args):
    folder = os.path.join(args.build, "tests", "gpuemu", "mutants", row["name"])
    try:
        mutated_tree(row, folder)
        if row["file"].endswith(".c"):
            program, extra = build_host(row, args, folder), ""
        else:
            program, extra = program_of(row["case"], args), "ptx=" + build_ptx(row, args, folder)
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
    try:
        status, output = try_case(args, key[0], key[1], program_of(key[0], args), "")
    except Broken as e:
        return False, "cannot be tried: %s" % e
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
