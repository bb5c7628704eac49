#!/usr/bin/env python3
"""Makes dequant.bin: random blocks of every readable weight type with the floats the gguf package makes of them.

    pip install gguf==0.19.0 numpy==2.3.5 && python3 make_dequant_golden.py
Made with the versions below. Layout, little-endian: "NTDQ" | u32 n_types | per type:
char name[8] (NUL padded) | u32 n_blocks | u32 bytes of blocks | u32 n_floats | blocks | f32[n_floats].
"""
VERSIONS = {"python": "3.11", "gguf": "0.19.0", "numpy": "2.3.5"}
import os
import struct
import sys

import gguf
import numpy as np

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
# Where the float16 scales of a block are; the rest of a block may be any bytes.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208]}


def finite_halves(rng, n):
    """Random bit patterns of finite float16, subnormals and both signs included."""
    h = rng.integers(0, 1 << 16, n, dtype=np.uint16)
    return np.where((h & 0x7C00) == 0x7C00, h ^ 0x4000, h).astype(np.uint16)


def blocks_of(rng, name):
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if block == 1:
        if name == "F32":
            raw = rng.standard_normal(64).astype(np.float32).view(np.uint8)
        elif name == "F16":
            raw = finite_halves(rng, 64).view(np.uint8)
        else:
            raw = (rng.standard_normal(64).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return kind, 64, raw.reshape(1, -1)
    n = 16 if block == 32 else 4
    raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in SCALES[name]:
        raw[:, at:at + 2] = finite_halves(rng, n).view(np.uint8).reshape(n, 2)
    return kind, n, raw


def main():
    rng = np.random.default_rng(20240229)
    out = bytearray(b"NTDQ" + struct.pack("<I", len(TYPES)))
    for name in TYPES:
        kind, n, raw = blocks_of(rng, name)
        floats = gguf.dequantize(raw, kind).astype("<f4").reshape(-1)
        assert np.isfinite(floats).all(), name
        out += struct.pack("<8sIII", name.encode(), n, raw.size, floats.size) + raw.tobytes() + floats.tobytes()
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "dequant.bin"), "wb") as f:
        f.write(out)
    import importlib.metadata as m
    found = {"python": "%d.%d" % sys.version_info[:2], "gguf": m.version("gguf"), "numpy": np.__version__}
    print("wrote %d bytes with %s" % (len(out), found))
    if found != VERSIONS:
        print("note: VERSIONS in this script says %s" % VERSIONS)


if __name__ == "__main__":
    main()
