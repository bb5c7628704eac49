#!/usr/bin/env python3
"""Writes tests/unit/core/json_numbers.txt: doubles as bits, and as Python's json.dumps writes them.

Usage: python3 tools/gen_json_numbers.py > tests/unit/core/json_numbers.txt   (Python 3.11; only the standard library)
"""
import json
import random
import struct
import sys


def bits(value):
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def main():
    rng = random.Random(20)
    values = [0.0, -0.0, 1.0, -1.0, 0.1, 0.2, 0.3, 0.1 + 0.2, 1 / 3, 2 / 3, 100.0, 1e15, 1e16, 1e17, 123456789012345678.0,
              9007199254740991.0, 9007199254740993.0, 9999999999999998.0, 1e-4, 1e-5, 0.00012345, 5e-324, 1e-323, 1.5e-320,
              2.2250738585072014e-308, 2.225073858507201e-308, 1.7976931348623157e308, 1e22, 1e23, 4.35, 0.000035689, 2.0**-1074,
              9.5367431640625e-07, 5e15, 123.0, 1700000000.25, -3.5, 1e100]
    values += [2.0**e for e in range(-1074, 1024, 61)]
    values += [struct.unpack("<f", struct.pack("<f", -rng.expovariate(0.3)))[0] for _ in range(120)]  # like logprobs
    values += [rng.uniform(-1, 1) * 10.0 ** rng.randint(-8, 20) for _ in range(120)]
    while len(values) < 400:
        value = struct.unpack("<d", struct.pack("<Q", rng.getrandbits(64)))[0]
        if value == value and abs(value) != float("inf"):
            values.append(value)
    for value in values:
        sys.stdout.write("%016x %s\n" % (bits(value), json.dumps(value)))


main()
