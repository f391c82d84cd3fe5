"""Generate the Python code of every .proto file, or check that the committed code is up to date.

    python proto/generate.py           writes the generated code
    python proto/generate.py --check   exits 1 and names the files when the committed code differs

A file's path below proto/ is its proto package and its Python package, so imports need no
rewriting.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
ROOT = PROTO.parent
SOURCE_ROOTS = {
    "letterlock": ROOT / "clients" / "python",
    "letterlockd": ROOT / "daemon",
}
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generate(package: str, out: Path) -> None:
    """Generate all files of one top-level proto package below `out`."""
    sources = sorted(str(path) for path in (PROTO / package).rglob("*.proto"))
    with_services = [path for path in sources if "\nservice " in Path(path).read_text()]
    scripts = Path(sysconfig.get_path("scripts"))
    plugins = [f"--plugin={p}={scripts / p}" for p in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    common = ["protoc", *plugins, f"-I{PROTO}", f"-I{files('grpc_tools') / '_proto'}"]
    run([*common, f"--python_out={out}", f"--mypy_out={out}", *sources])
    if with_services:
        run([*common, f"--grpc_python_out={out}", f"--mypy_grpc_out={out}", *with_services])
    for path in generated(out, package):
        for folder in path.parent.relative_to(out / package).parents:
            _mark_package(out / package / folder)
        _mark_package(path.parent)


def run(arguments: list[str]) -> None:
    """Run protoc; exit when it refuses."""
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")


def generated(root: Path, package: str) -> list[Path]:
    """The generated files of one package below `root`, sorted."""
    found = (path for pattern in GENERATED for path in (root / package).rglob(pattern))
    return sorted(set(found))


def _mark_package(folder: Path) -> None:
    marker = folder / "__init__.py"
    if not marker.exists():
        marker.write_text('"""Generated protobuf code; see proto/."""\n')


def differing(package: str, root: Path) -> list[str]:
    """Relative paths of generated files that differ from what the .proto files give now."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(package, fresh)
        ours = {p.relative_to(root): p.read_bytes() for p in generated(root, package)}
        theirs = {p.relative_to(fresh): p.read_bytes() for p in generated(fresh, package)}
    return sorted(str(p) for p in ours.keys() | theirs.keys() if ours.get(p) != theirs.get(p))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if parser.parse_args().check:
        stale = [
            name for package, root in SOURCE_ROOTS.items() for name in differing(package, root)
        ]
        if stale:
            sys.exit("generated code is out of date (run `make gen`): " + ", ".join(stale))
        return
    for package, root in SOURCE_ROOTS.items():
        for path in generated(root, package):
            path.unlink()
        generate(package, root)


if __name__ == "__main__":
    main()
