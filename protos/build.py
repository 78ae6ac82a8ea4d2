"""Compiles the contracts: Python stubs into gen/, and one descriptor image for buf and reflection-driven checks.

The imported files (google.api, buf.validate) come from the descriptors inside the installed packages, so nothing is
copied into protos/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.api import annotations_pb2, http_pb2
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
)
from protovalidate._gen.buf.validate import validate_pb

PROTOS = Path(__file__).resolve().parent
GENERATED = PROTOS.parent / "gen"
# The contract as last released: what `make check` compares with.
RELEASED = PROTOS / "released.binpb"

_IMPORTED = (
    descriptor_pb2,
    any_pb2,
    empty_pb2,
    duration_pb2,
    timestamp_pb2,
    field_mask_pb2,
    struct_pb2,
    http_pb2,
    annotations_pb2,
)


def _write_imports(path: Path) -> None:
    """Write a FileDescriptorSet of every third-party file that the contracts import."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in _IMPORTED:
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    path.write_bytes(files.SerializeToString())


def _protoc(imports: Path, arguments: list[str], sources: list[str]) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={imports}"]
    # protoc finds its plugins on the PATH; ours are beside the interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path}
    subprocess.run([*command, *arguments, *sources], check=True, cwd=PROTOS, env=environment)


def _sources() -> list[str]:
    return sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("lensmesh/**/*.proto"))


def build_stubs(generated: Path = GENERATED) -> None:
    """Replace gen/, or another folder, by freshly generated messages, services, their types, and the REST calls."""
    with tempfile.TemporaryDirectory() as scratch:
        imports = Path(scratch) / "imports.binpb"
        _write_imports(imports)
        target = Path(scratch) / "gen"
        target.mkdir()
        kinds = {"python": "", "grpc_python": "", "mypy": "quiet:", "mypy_grpc": "quiet:"}
        _protoc(imports, ["-I.", *(f"--{kind}_out={flag}{target}" for kind, flag in kinds.items())], _sources())
        _protoc(
            imports,
            [f"--python_out={target}", f"--mypy_out=quiet:{target}"],
            ["buf/validate/validate.proto"],
        )
        # With comments: the OpenAPI description is made of it.
        image = ["-I.", "--include_imports", "--include_source_info", f"-o{target}/lensmesh/v1/contracts.binpb"]
        _protoc(imports, image, _sources())
        # In a process of its own: it imports what was just made, whatever this one has imported.
        path = [str(target), str(PROTOS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        subprocess.run([sys.executable, PROTOS / "rest_client.py", target], check=True, env=environment)
        shutil.rmtree(generated, ignore_errors=True)
        shutil.copytree(target, generated, ignore=shutil.ignore_patterns("__pycache__"))


def build_image(path: Path, *, source_info: bool) -> None:
    """Write the contracts and everything they import as one FileDescriptorSet."""
    with tempfile.TemporaryDirectory() as scratch:
        imports = Path(scratch) / "imports.binpb"
        _write_imports(imports)
        flags = ["-I.", "--include_imports", f"-o{path.resolve()}"]
        _protoc(imports, flags + (["--include_source_info"] if source_info else []), _sources())


def check() -> int:
    """Lint, formatting and breaking changes, by buf. Returns the number of failed checks."""
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        build_image(image, source_info=True)
        buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or "buf"
        config = str(PROTOS / "buf.yaml")
        commands = [
            [buf, "lint", str(image), "--config", config, "--path", "lensmesh"],
            [buf, "breaking", str(image), "--against", str(RELEASED), "--config", config],
            [buf, "format", "--diff", "--exit-code"],
        ]
        return sum(subprocess.run(command, cwd=PROTOS).returncode != 0 for command in commands)


def main() -> None:
    """Run one command: stubs, check, or release (accept the contracts as the new baseline)."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("command", choices=("stubs", "check", "release"))
    parser.add_argument("--into", type=Path, default=GENERATED, help="where stubs go, in the place of what is there")
    given = parser.parse_args()
    command = given.command
    if command == "stubs":
        build_stubs(given.into)
    elif command == "release":
        build_image(RELEASED, source_info=False)
    else:
        sys.exit(min(check(), 1))


if __name__ == "__main__":
    main()
