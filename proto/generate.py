"""Generate the code of every .proto file, or check that the committed code is up to date.

    python proto/generate.py           writes the generated code
    python proto/generate.py --check   exits 1 and names the files when the committed code differs

A file's path below proto/ is its proto package and its Python package, so imports need no
rewriting. The TypeScript client gets the public packages, where its generator is installed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
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

TYPESCRIPT = ROOT / "clients" / "typescript"
TYPESCRIPT_OUT = TYPESCRIPT / "src" / "generated"
TYPESCRIPT_PLUGIN = TYPESCRIPT / "node_modules" / ".bin" / "protoc-gen-es"


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


def generate_typescript(out: Path) -> None:
    """Generate the public packages, and Google's error details, for the TypeScript client."""
    google = Path(str(files("google.rpc") / "status.proto")).parent
    sources = sorted(str(path) for path in (PROTO / "letterlock").rglob("*.proto"))
    sources += [str(google / name) for name in ("error_details.proto", "status.proto")]
    roots = [f"-I{root}" for root in (PROTO, files("grpc_tools") / "_proto", google.parents[1])]
    plugin = f"--plugin=protoc-gen-es={TYPESCRIPT_PLUGIN}"
    options = "--es_opt=target=ts,import_extension=js"
    run(["protoc", plugin, *roots, f"--es_out={out}", options, *sources])


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


def differing() -> Iterator[str]:
    """Relative paths of generated files that differ from what the .proto files give now."""
    for package, root in SOURCE_ROOTS.items():
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder)
            generate(package, fresh)
            yield from _compare(root, generated(root, package), fresh, generated(fresh, package))
    if has_typescript():
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder)
            generate_typescript(fresh)
            ours, theirs = TYPESCRIPT_OUT.rglob("*.ts"), fresh.rglob("*.ts")
            yield from _compare(TYPESCRIPT_OUT, list(ours), fresh, list(theirs))


def _compare(root: Path, ours: list[Path], fresh: Path, theirs: list[Path]) -> list[str]:
    old = {path.relative_to(root): path.read_bytes() for path in ours}
    new = {path.relative_to(fresh): path.read_bytes() for path in theirs}
    return sorted(str(path) for path in old.keys() | new.keys() if old.get(path) != new.get(path))


def has_typescript() -> bool:
    """Whether the TypeScript generator is installed; says so where it is not."""
    if TYPESCRIPT_PLUGIN.exists() and shutil.which("node"):
        return True
    sys.stderr.write("clients/typescript is not installed: its generated code is passed over\n")
    return False


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if parser.parse_args().check:
        if stale := list(differing()):
            sys.exit("generated code is out of date (run `make gen`): " + ", ".join(stale))
        return
    for package, root in SOURCE_ROOTS.items():
        for path in generated(root, package):
            path.unlink()
        generate(package, root)
    if has_typescript():
        shutil.rmtree(TYPESCRIPT_OUT, ignore_errors=True)
        TYPESCRIPT_OUT.mkdir()
        generate_typescript(TYPESCRIPT_OUT)


if __name__ == "__main__":
    main()
