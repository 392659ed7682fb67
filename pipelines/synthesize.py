"""Runs sql/: packets in, pooled answers out.

Every file of sql/ says in its header what it reads, so the order of the statements is computed and never written down:
a new synthesis is a new file. Header keys, one comment line each, continued on lines that begin with `--   `:
    -- NAME: the question it answers       NAME is the file's name
    -- inputs: relations it reads          other files, or packets, t_crit, cohorts
    -- output:, grain:, source:            columns and units; what a row is; where the formula is from
    -- answer: yes | no                    an answer for people, or a step on the way to one
    -- cohorts: NAME                       (optional) the file that `cohorts` stands for under this answer
    -- repeat: NAME                        (optional) starts as NAME, then reads its own result until all is settled

`cohorts`, the sets of effects that are pooled, lets leave-one-out use the one copy of each estimator that pooled uses.
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

from pipelines.shipped import shipped
from qis_connectors import address
from qis_connectors.errors import QisError

SQL_FOLDER = shipped("sql")
BASE_RELATIONS = frozenset({"packets", "t_crit"})
PLAIN_COHORTS = "every_packet"
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
    cohorts: str | None
    repeat: str | None
    text: str

    def reads(self, cohorts: str) -> set[str]:
        """The files this one reads where `cohorts` stands for the file of that name."""
        named = {*self.inputs, *filter(None, [self.repeat])} - BASE_RELATIONS
        return {cohorts if name == "cohorts" else name for name in named}


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
        inputs=tuple(name.strip() for name in header["inputs"].split(",")),
        output=header["output"],
        grain=header["grain"],
        source=header["source"],
        answer=header["answer"] == "yes",
        cohorts=header.get("cohorts"),
        repeat=header.get("repeat"),
        text=text,
    )


@cache
def statements(folder: Path = SQL_FOLDER) -> dict[str, Statement]:
    """Every statement of `folder` by name, each after the ones it reads.

    Raises SynthesisError, naming the file: a broken header, an input that no file and no base relation is, a circle.
    """
    known = {path.stem: parse(path) for path in sorted(folder.glob("*.sql"))}
    for statement in known.values():
        for name in sorted(statement.reads(statement.cohorts or PLAIN_COHORTS)):
            if name not in known:
                raise SynthesisError(f"{statement.name}.sql: unknown input{_nearest(name, known)}")
    return {name: known[name] for name in _ordered(known.values(), PLAIN_COHORTS)}


def answers() -> list[str]:
    """The names of the statements that are answers for people."""
    return [name for name, statement in statements().items() if statement.answer]


def plan(name: str) -> list[Statement]:
    """`name` and all it reads, in the order they run; SynthesisError for a name that no file has."""
    known = statements()
    if name not in known:
        raise SynthesisError(f"no synthesis{_nearest(name, known)}")
    cohorts = known[name].cohorts or PLAIN_COHORTS
    needed: dict[str, Statement] = {}
    unread = {name}
    while unread:
        step = known[unread.pop()]
        needed[step.name] = step
        unread |= step.reads(cohorts) - needed.keys()
    return [known[step] for step in _ordered(needed.values(), cohorts)]


def synthesize(connection: duckdb.DuckDBPyConnection, names: Sequence[str] | None = None) -> dict[str, pa.Table]:
    """The answers `names` (None: all of them) over the relation `packets` of `connection`, by name.

    `packets` has a packet's columns and `address`: a registered Arrow table, or a view over the Delta table. The steps
    stay behind as temporary tables of their own names. SynthesisError for an unknown name.
    """
    plans = {name: plan(name) for name in (answers() if names is None else names)}
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE t_crit AS "
        "FROM read_csv(?, columns = {df: 'BIGINT', t975: 'DOUBLE', t95: 'DOUBLE'})",
        [str(shipped("data/t_crit.csv"))],
    )
    found: dict[str, pa.Table] = {}
    for name, steps in plans.items():
        # Each answer runs its whole plan: the steps it shares with another mean other cohorts there.
        for step in steps:
            _run(connection, step)
            if step.name == (steps[-1].cohorts or PLAIN_COHORTS):
                connection.execute(f"CREATE OR REPLACE TEMP VIEW cohorts AS FROM {step.name}")
        found[name] = connection.table(name).to_arrow_table()
    return found


def synthesize_packets(packets: pa.Table, name: str = "pooled") -> pa.Table:
    """One answer over packets in memory; where they have no `address`, domain and problem_type give it."""
    if "address" not in packets.column_names:
        domain, problem_type = (packets[key].combine_chunks() for key in ("domain", "problem_type"))
        packets = packets.append_column("address", address.column(domain, problem_type))
    with duckdb.connect() as connection:
        connection.register("packets", packets)
        return synthesize(connection, [name])[name]


def _run(connection: duckdb.DuckDBPyConnection, statement: Statement) -> None:
    """Makes the statement's relation, a temporary table of its name."""
    create = f"CREATE OR REPLACE TEMP TABLE {statement.name} AS"
    if statement.repeat is None:
        connection.execute(f"{create} {statement.text}")
        return
    connection.execute(f"{create} FROM {statement.repeat}")
    unsettled = f"SELECT 1 FROM {statement.name} WHERE NOT settled LIMIT 1"
    for _ in range(MAX_STEPS):
        if not connection.execute(unsettled).fetchone():
            return
        connection.execute(f"{create} {statement.text}")


def _ordered(known: Iterable[Statement], cohorts: str) -> list[str]:
    graph = {statement.name: statement.reads(statement.cohorts or cohorts) for statement in known}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(f"{name}.sql" for name in error.args[1])
        raise SynthesisError(f"{circle}: these files read one another in a circle") from None


def _nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error line: the unknown name, what was probably meant, and all there is."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f" '{name}'" + (f"; did you mean '{close[0]}'?" if close else "") + f" Known: {', '.join(known)}"
