"""Builds the DuckDB extension into wheels and editable installs: C++ against the Flight library of the pyarrow wheel.

DuckDB's headers come out of its source distribution, which pip downloads once and checks against the hash in
headers.txt. Without a compiler, pyarrow's headers or a network one line says so, and everything else installs.
"""

import platform
import subprocess
import sys
import sysconfig
import tarfile
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

API = "v1.5.6"
"""DuckDB's stable C API that the extension asks for: DuckDB 1.5.6 has it, and every 2.x."""

SOURCES = Path("qis_connectors/duckdb/extension")
EXTENSION = Path("qis_connectors/duckdb/qis.duckdb_extension")
HEADERS = ("duckdb.h", "duckdb_extension.h")
LIBRARIES = ("arrow", "arrow_compute", "arrow_flight")
FLAGS = ("-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-shared")


class UnbuildableError(Exception):
    """The extension cannot be built here; the text is the rest of one line."""


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        try:
            build(root, self.metadata.version, is_editable=version == "editable")
        except UnbuildableError as reason:
            (root / EXTENSION).unlink(missing_ok=True)
            self.app.display_warning(f"qis-connectors: installed without its DuckDB extension: {reason}")
            return
        build_data["artifacts"].append(str(EXTENSION))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def build(root: Path, version: str, *, is_editable: bool) -> None:
    """Make EXTENSION in the folder `root`; UnbuildableError where that is not possible."""
    compiler = which("c++") or which("g++") or which("clang++")
    if compiler is None:
        raise UnbuildableError("there is no C++ compiler (Debian: g++)")
    spec = find_spec("pyarrow")
    if spec is None or spec.origin is None:
        raise UnbuildableError("there is no pyarrow to build against")
    pyarrow = Path(spec.origin).parent
    include = root / "build" / "duckdb-headers"
    _fetch_headers(root, include)
    # The library looks for Flight in the pyarrow beside the installed package; in an editable install, where it is.
    origin = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
    places = [f"{origin}/../../pyarrow", *([str(pyarrow)] if is_editable else [])]
    with TemporaryDirectory() as folder:
        library = Path(folder) / "qis.so"
        _compile(compiler, root / SOURCES, (include, pyarrow / "include"), pyarrow, library, places)
        # Another file in its place: a process that has loaded the old one keeps it.
        fresh = (root / EXTENSION).with_suffix(".new")
        fresh.write_bytes(library.read_bytes() + footer(version))
        fresh.replace(root / EXTENSION)


def footer(version: str) -> bytes:
    """What DuckDB reads at a library's end before it loads it (its scripts/append_metadata.cmake); unsigned."""
    fields = ("", "", "", "C_STRUCT", version, API, _platform(), "4")
    packed = b"".join(field.encode()[:32].ljust(32, b"\0") for field in fields)
    return b"\0" + bytes([147, 4, 16]) + b"duckdb_signature" + bytes([128, 4]) + packed + bytes(256)


def _platform() -> str:
    machines = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    systems = {"linux": "linux", "darwin": "osx"}
    try:
        return f"{systems[sys.platform]}_{machines[platform.machine().lower()]}"
    except KeyError:
        raise UnbuildableError(f"it is not made for {sys.platform} on {platform.machine()}") from None


def _fetch_headers(root: Path, include: Path) -> None:
    pinned = (root / SOURCES / "headers.txt").read_text(encoding="utf-8")
    stamp = include / "headers.txt"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == pinned:
        return
    include.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        _run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
                *("--no-binary", "duckdb", "--require-hashes", "--requirement", str(root / SOURCES / "headers.txt")),
                *("--dest", folder),
            ],
            "DuckDB's headers cannot be downloaded",
        )
        (source,) = Path(folder).glob("duckdb-*.tar.gz")
        with tarfile.open(source) as archive:
            for member in archive:
                path = Path(member.name)
                file = archive.extractfile(member) if path.name in HEADERS and path.parent.name == "include" else None
                if file is not None:
                    (include / path.name).write_bytes(file.read())
    if not all((include / name).exists() for name in HEADERS):
        raise UnbuildableError("DuckDB's source distribution has other headers than expected")
    stamp.write_text(pinned, encoding="utf-8")


def _compile(
    compiler: str, sources: Path, includes: tuple[Path, ...], pyarrow: Path, library: Path, places: list[str]
) -> None:
    """One translation unit of all sources: Arrow's headers cost more than everything of ours."""
    unit = library.with_suffix(".cpp")
    lines = [f'#include "{source}"\n' for source in sorted(sources.glob("*.cpp"))]
    unit.write_text("".join(lines), encoding="utf-8")
    pattern = "lib{}.*.dylib" if sys.platform == "darwin" else "lib{}.so.*"
    libraries = [str(next(pyarrow.glob(pattern.format(name)), name)) for name in LIBRARIES]
    paths = [flag for include in includes for flag in ("-isystem", str(include))]
    rpath = [f"-Wl,-rpath,{place}" for place in places]
    _run([compiler, *FLAGS, *paths, str(unit), *libraries, *rpath, "-o", str(library)], "the compiler failed")


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if "error" in line.lower()]
        raise UnbuildableError(f"{failure}: {lines[0].strip() if lines else f'exit status {done.returncode}'}"[:300])
