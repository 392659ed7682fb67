"""Runs sql/: packets in, pooled answers out.

Every file of sql/ says in its header what it reads, so the order of the statements is computed and never written down:
a new synthesis is a new file. Header keys, one comment line each, continued on lines that begin with `--   `:
    -- NAME: the question it answers       NAME is the file's name
    -- inputs: relations it reads          other files, or packets, cohorts, or a table of data/: t_crit, chi2_crit; or
    --                                     similar_contexts: who is similar to whom (pipelines/similar_contexts.py)
    -- output:, grain:, source:            columns and units; what a row is; where the formula is from
    -- answer: yes | no                    an answer for people, or a step on the way to one
    -- cohorts: NAMES                      (optional) the files whose rows `cohorts` has to hold for this answer
    -- repeat: NAME                        (optional) starts as NAME, then reads its own result until all is settled

`cohorts`, the sets of effects that are pooled, lets leave-one-out use the one copy of each estimator that pooled uses:
it holds the rows of every cohort file that some answer of the run asks for, each file with labels of its own.

An answer has a column `address`, and each of its rows rests on packets of its own address alone: what nobody has
deposited at since need not be computed again (pipelines/kept.py).
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import csv

from pipelines.shipped import shipped
from pipelines.similar_contexts import similar_contexts
from pipelines.sql_engine import Connection, SqlEngine, engine_on
from qis_connectors import address
from qis_connectors.errors import QisError
from qis_connectors.similarity import Definitions

SQL_FOLDER = shipped("sql")
CONSTANTS = ("t_crit", "chi2_crit")
"""Tables of data/: quantiles, which SQL has no function for."""
SIMILAR = "similar_contexts"
GIVEN = ("packets", SIMILAR, *CONSTANTS, "networks", "similarities", "forecasts")
"""What no file makes: packets, constants, what the formula of similarity gives, and what pipelines/elections binds."""
PLAIN_COHORTS = ("every_packet",)
_COHORT_COLUMNS = "address, metric_name, intervention_type, cohort, yi, vi"
REQUIRED_KEYS = ("inputs", "output", "grain", "source", "answer")
# Newton's method settles in about eight steps; Huber's takes forty where 45 % of the sites lie in one direction.
MAX_STEPS = 100


class SynthesisError(QisError, ValueError):
    """No synthesis of that name, or a file of sql/ whose header is wrong."""


@dataclass(frozen=True)
class Statement:
    """One file of sql/ and what its header says of it."""

    name: str
    title: str
    inputs: tuple[str, ...]
    output: str
    grain: str
    source: str
    answer: bool
    cohorts: tuple[str, ...]
    repeat: str | None
    text: str

    def reads(self, cohorts: Iterable[str]) -> set[str]:
        """The files this one reads where `cohorts` holds the rows of the files of those names."""
        named = {*self.inputs, *filter(None, [self.repeat])} - {*GIVEN}
        return (named - {"cohorts"}).union(cohorts) if "cohorts" in named else named


def parse(path: Path) -> Statement:
    """The statement in `path`; SynthesisError, naming the file, where the header lacks a key or has an unknown one."""
    text = path.read_text(encoding="utf-8")
    header: dict[str, str] = {}
    for line in text.splitlines():
        if found := re.fullmatch(r"-- (\w+): (.+)", line):
            header[key := found[1]] = found[2].strip()
        elif header and line.startswith("--   "):
            header[key] += " " + line[2:].strip()
        else:
            break
    known = (path.stem, *REQUIRED_KEYS, "cohorts", "repeat")
    for key in (path.stem, *REQUIRED_KEYS):
        if key not in header:
            raise SynthesisError(f"{path.name}: the header has no line '-- {key}: ...'")
    for key in header:
        if key not in known:
            raise SynthesisError(f"{path.name}: unknown header key{_nearest(key, known)}")
    if header["answer"] not in ("yes", "no"):
        raise SynthesisError(f"{path.name}: answer is '{header['answer']}', not yes or no")
    return Statement(
        name=path.stem,
        title=header[path.stem],
        inputs=_names(header["inputs"]),
        output=header["output"],
        grain=header["grain"],
        source=header["source"],
        answer=header["answer"] == "yes",
        cohorts=_names(header["cohorts"]) if "cohorts" in header else (),
        repeat=header.get("repeat"),
        text=text,
    )


@cache
def statements(*folders: Path) -> dict[str, Statement]:
    """Every statement of `folders` (none: of sql/ itself) by name, each after the ones it reads.

    Raises SynthesisError, naming the file: a broken header, an input that no file and no base relation is, a circle.
    """
    paths = [path for folder in folders or (SQL_FOLDER,) for path in sorted(folder.glob("*.sql"))]
    known = {path.stem: parse(path) for path in paths}
    for statement in known.values():
        for name in sorted(statement.reads(PLAIN_COHORTS).union(statement.cohorts)):
            if name not in known:
                raise SynthesisError(f"{statement.name}.sql: unknown input{_nearest(name, known)}")
    return {name: known[name] for name in _ordered(known.values(), PLAIN_COHORTS)}


def answers() -> list[str]:
    """The names of the statements that are answers for people."""
    return [name for name, statement in statements().items() if statement.answer]


def plan(*names: str, folders: tuple[Path, ...] = ()) -> list[Statement]:
    """The statements `names` of `folders` and all they read, in the order they run; SynthesisError for a name that no
    file has."""
    known = statements(*folders)
    for name in names:
        if name not in known:
            raise SynthesisError(f"no synthesis{_nearest(name, known)}")
    needed = dict.fromkeys(names)
    while True:
        cohorts = _cohorts(known[name] for name in needed)
        reads = set().union(*(known[name].reads(cohorts) for name in needed))
        if reads <= needed.keys():
            return [known[name] for name in _ordered((known[name] for name in needed), cohorts)]
        needed.update(dict.fromkeys(sorted(reads)))


def synthesize(
    connection: Connection, names: Sequence[str] | None = None, definitions: Definitions | None = None
) -> dict[str, pa.Table]:
    """The answers `names` (None: all of them) over the relation `packets` of `connection`, by name.

    `packets` has a packet's columns and `address`: a registered Arrow table, or a view over the Delta table.
    Sites are similar by `definitions` (None: the shipped ones), those of each address by that of its domain.
    `connection` is DuckDB's, where the steps stay behind as temporary tables of their own names, or a Spark session.
    SynthesisError for an unknown name.
    """
    names = answers() if names is None else names
    steps = plan(*names)
    engine = engine_on(connection)
    for name in CONSTANTS:
        engine.bind(name, csv.read_csv(shipped(f"data/{name}.csv")))
    if any(SIMILAR in step.inputs for step in steps):
        engine.keep("contexts", "SELECT DISTINCT address, context FROM packets WHERE context IS NOT NULL")
        engine.bind(SIMILAR, similar_contexts(engine.table("contexts"), definitions or shipped_definitions()))
    cohorts = _cohorts(steps)
    made: set[str] = set()
    for step in steps:
        run(engine, step)
        made.add(step.name)
        if step.name in cohorts and made.issuperset(cohorts):
            rows = " UNION ALL ".join(f"SELECT {_COHORT_COLUMNS} FROM {name}" for name in cohorts)
            engine.define("cohorts", rows)
    return {name: engine.table(name) for name in names}


def synthesize_packets(packets: pa.Table, name: str = "pooled") -> pa.Table:
    """One answer over packets in memory; where they have no `address`, domain and problem_type give it."""
    if "address" not in packets.column_names:
        domain, problem_type = (packets[key].combine_chunks() for key in ("domain", "problem_type"))
        packets = packets.append_column("address", address.column(domain, problem_type))
    with duckdb.connect() as connection:
        connection.register("packets", packets)
        return synthesize(connection, [name])[name]


def shipped_definitions() -> Definitions:
    """Those of similarity/."""
    return Definitions.read(shipped("similarity"))


def run(engine: SqlEngine, statement: Statement) -> None:
    """Makes the statement's relation, of its name."""
    if statement.repeat is None:
        engine.keep(statement.name, statement.text)
        return
    engine.keep(statement.name, f"SELECT * FROM {statement.repeat}")
    for _ in range(MAX_STEPS):
        if engine.is_settled(statement.name):
            return
        engine.step(statement.name, statement.text)


def _cohorts(steps: Iterable[Statement]) -> tuple[str, ...]:
    """The files whose rows `cohorts` holds where these statements run together."""
    asked = {name for step in steps for name in step.cohorts}
    return tuple(sorted(asked)) or PLAIN_COHORTS


def _ordered(known: Iterable[Statement], cohorts: Sequence[str]) -> list[str]:
    graph = {statement.name: sorted(statement.reads(cohorts)) for statement in known}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(f"{name}.sql" for name in error.args[1])
        raise SynthesisError(f"{circle}: these files read one another in a circle") from None


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(","))


def _nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error line: the unknown name, what was probably meant, and all there is."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f" '{name}'" + (f"; did you mean '{close[0]}'?" if close else "") + f" Known: {', '.join(known)}"
