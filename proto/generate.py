"""Generate `service/pb` from `proto/`. `python proto/generate.py [--check]`.

protoc writes absolute imports that start at the proto root (`from efficientsam3.v1 import ...`); they are
rewritten to the package that holds the code here (`service.pb.efficientsam3.v1`).
"""

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
TARGET = ROOT / "service" / "pb"
PACKAGE = "service.pb"
# Where pip puts the plugins of the interpreter that runs this, on the PATH or not.
BIN = Path(sys.executable).parent


def generate(target: Path) -> None:
    """Write the generated tree of every .proto file below `proto/` into `target`."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    bundled = files("grpc_tools") / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"-I{PROTO}",
            f"-I{bundled}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            *(f"--plugin={name}={BIN / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            *sources,
        ]
    )
    if code != 0:
        raise SystemExit(code)
    for path in [*target.rglob("*.py"), *target.rglob("*.pyi")]:
        text = re.sub(
            r"^(from|import) efficientsam3\.", r"\1 service.pb.efficientsam3.", path.read_text(), flags=re.M
        )
        path.write_text(re.sub(r"\[efficientsam3\.", "[service.pb.efficientsam3.", text))
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text("")


def _texts(folder: Path) -> dict[str, str]:
    """Every module and stub below `folder`, by its path in it."""
    files = [*folder.rglob("*.py"), *folder.rglob("*.pyi")]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def check() -> None:
    """Exit with 1 when the committed code is not what the .proto files give."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.relative_to(folder): path.read_text() for path in Path(folder).rglob("*.py*")}
    committed = {
        path.relative_to(TARGET): path.read_text() for path in TARGET.rglob("*.py*") if path.suffix != ".pyc"
    }
    stale = sorted(
        str(path) for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path)
    )
    if stale:
        raise SystemExit(f"service/pb is stale, run `make fix`: {', '.join(stale)}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        check()
    else:
        generate(TARGET)
