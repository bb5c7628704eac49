"""same_h5.py A B: 0 when both HDF5 files hold the same groups, datasets (bytes, types) and attributes. Without h5py the files must be equal as a whole."""
import sys

try:
    import h5py
except ImportError:
    try:
        sys.path.append("/usr/lib/python3/dist-packages")
        import h5py
    except ImportError:
        with open(sys.argv[1], "rb") as a, open(sys.argv[2], "rb") as b:
            sys.exit(0 if a.read() == b.read() else 1)


def describe(path):
    found = {}

    def visit(name, item):
        attrs = {k: str(v) for k, v in item.attrs.items()}
        found[name] = (attrs, str(item.dtype), item.shape, item[()].tobytes()) if isinstance(item, h5py.Dataset) else (attrs,)

    with h5py.File(path) as f:
        f.visititems(visit)
        found["/"] = ({k: str(v) for k, v in f.attrs.items()},)
    return found


a, b = describe(sys.argv[1]), describe(sys.argv[2])
for name in sorted(set(a) | set(b)):
    if a.get(name) != b.get(name):
        sys.exit(f"{name} differs")
if not any(len(v) == 4 for v in a.values()):
    sys.exit("no datasets")
