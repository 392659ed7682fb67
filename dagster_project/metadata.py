"""What the page shows of a result: counts, answers, SQL, pictures. Never rows of a site, nor values out of them."""

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import pyarrow as pa

from pipelines.inspection import Finding
from pipelines.synthesize import Statement

MAX_ROWS = 100
"""Of a longer answer the page shows so much of each problem; the file has all."""
_KEY = ("address", "metric_name", "intervention_type")


def answer_table(rows: pa.Table) -> dg.MarkdownMetadataValue:
    """An answer as Markdown, a table for each problem, whose name stands above it; a wide table is turned."""
    names = [name for name in rows.column_names if name not in _KEY]
    lines_of: dict[str, list[list[str]]] = {}
    for row in rows.to_pylist():
        title = " · ".join(str(row[key]) for key in _KEY)
        lines_of.setdefault(title, [names]).append([_text(row[name]) for name in names])
    return dg.MetadataValue.md("\n".join(_table(title, lines) for title, lines in lines_of.items()))


def findings_table(found: Iterable[Finding]) -> dg.TableMetadataValue:
    """What was looked for, in how many places, and in how many it is wrong; the same thing of many sites is one row."""
    places, wrong = Counter[str](), Counter[str]()
    for finding in found:
        places[finding.looked_for] += finding.places
        wrong[finding.looked_for] += finding.wrong
    schema = dg.TableSchema([dg.TableColumn("looked for"), *(dg.TableColumn(name, "int") for name in ("in", "wrong"))])
    records = [dg.TableRecord({"looked for": name, "in": places[name], "wrong": wrong[name]}) for name in places]
    return dg.MetadataValue.table(records, schema)


def sql_description(statement: Statement) -> str:
    """The catalogue text of an answer: the question, and the file of sql/ that answers it."""
    return f"{statement.title[0].upper()}{statement.title[1:]}\n\n```sql\n{statement.text.strip()}\n```"


def picture(path: Path) -> dg.MarkdownMetadataValue:
    """An SVG file, carried in the text itself: the page has no folder to fetch it from."""
    image = b64encode(path.read_bytes()).decode()
    return dg.MetadataValue.md(f"![{path.name}](data:image/svg+xml;base64,{image})")


def _table(title: str, lines: list[list[str]]) -> str:
    if len(lines) > MAX_ROWS + 1:
        title += f" (the first {MAX_ROWS} of {len(lines) - 1:,} rows)"
        lines = lines[: MAX_ROWS + 1]
    if len(lines[0]) > len(lines):
        lines = [list(line) for line in zip(*lines, strict=True)]
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([f"**{title}**", "", head, "|---" * len(lines[0]) + "|", *body, ""])


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")
