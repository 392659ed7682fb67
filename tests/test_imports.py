"""Imports run one way: address, packet <- the rest of qis_connectors <- pipelines <- dagster_project <- nobody."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("qis_connectors", "pipelines", "dagster_project")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# module prefix -> our modules it may import; the longest matching prefix counts.
MAY_IMPORT = {
    "qis_connectors.errors": (),
    "qis_connectors.packet_id": (),
    "qis_connectors.chain": ("qis_connectors.packet_id",),
    "qis_connectors.address": ("qis_connectors.errors",),
    "qis_connectors.outcome": (),
    "qis_connectors.packet": ("qis_connectors.errors", "qis_connectors.packet_id", "qis_connectors.packet_rules"),
    "qis_connectors.packet_rules": ("qis_connectors.packet_id",),
    "qis_connectors.router.packet_log": (
        "qis_connectors.router.packet_log",
        *(
            "qis_connectors." + name
            for name in ("address", "chain", "errors", "filters", "packet", "packet_id", "receipt", "request")
        ),
    ),
    "qis_connectors": ("qis_connectors",),
    "pipelines": ("qis_connectors", "pipelines"),
    "dagster_project": PACKAGES,
}
# library -> the only modules that may import it.
ONLY_IN = {
    "dagster": ("dagster_project",),
    "deltalake": ("qis_connectors.delta",),
    "duckdb": ("qis_connectors.duckdb", "qis_connectors.delta", "pipelines."),
    "pyspark": (
        "qis_connectors.spark",
        "pipelines.engine",
        "pipelines.sql_engine",
        "pipelines.distill_in_executors",
    ),
    "delta": ("qis_connectors.spark.packet_table", "pipelines.engine"),
    "opendp": ("pipelines.noise",),
    "apsw": ("qis_connectors.router.",),
    "typer": ("pipelines.cli",),
    "prometheus_client": ("qis_connectors.router.metrics",),
    "jwt": ("qis_connectors.network.tokens",),
    "cryptography": (
        "qis_connectors.network",
        "qis_connectors.router.access",
        "qis_connectors.keys",
        "qis_connectors.signing",
    ),
    "structlog": ("qis_connectors.router.logs",),
    "sklearn": ("pipelines.training",),
    "scipy": ("pipelines.training",),
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Every module the file imports, wherever in it; `from a import b` counts as a.b too when that is a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the whole name of the module"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            ours = {module_of(other) for other in FILES}
            yield from (name if name in ours else str(node.module) for name in names)


def within(module: str, prefix: str) -> bool:
    return module == prefix.rstrip(".") or module.startswith(prefix.rstrip(".") + ".")


def test_there_is_something_to_check():
    assert len(FILES) > 20
    assert {module_of(path).split(".")[0] for path in FILES} == set(PACKAGES)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_arrows_point_one_way(path):
    module = module_of(path)
    allowed = MAY_IMPORT[max((prefix for prefix in MAY_IMPORT if within(module, prefix)), key=len)]
    for imported in imports_of(path):
        if within(imported, "pipelines") or within(imported, "qis_connectors") or within(imported, "dagster_project"):
            assert any(within(imported, one) for one in allowed), f"{module} may not import {imported}"
        for library, homes in ONLY_IN.items():
            if within(imported, library):
                assert any(module.startswith(home) for home in homes), f"{module} may not import {library}"


def test_nothing_outside_imports_the_cli_or_the_dagster_project():
    for path in FILES:
        module = module_of(path)
        for imported in imports_of(path):
            assert not (within(imported, "pipelines.cli") and not within(module, "pipelines.cli")), module


def test_the_base_install_imports_no_extra():
    """The qis command and the wire come up without Spark and Dagster, and matplotlib waits until a plot is drawn."""
    code = (
        "import sys, qis_connectors, pipelines.cli;"
        "optional = {'pyspark', 'dagster', 'great_expectations', 'pandas', 'matplotlib', 'sklearn', 'scipy'};"
        "optional |= {'qis_connectors.duckdb', 'opendp'};"
        "print(*sorted(optional & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_are_small_and_speak_for_themselves(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300, "can this be two rooms?"
    assert path.stem not in ("utils", "helpers", "common", "misc")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a file says first what is in it"
