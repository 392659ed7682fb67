"""What the page shows of a result: counts, answers, SQL, pictures. Never rows of a site, nor values out of them."""

from base64 import b64encode
from pathlib import Path

import dagster as dg
import pyarrow as pa

from pipelines.synthesize import Statement

_KEY = ("address", "metric_name", "intervention_type")


def answer_table(rows: pa.Table) -> dg.MarkdownMetadataValue:
    """An answer as Markdown, a table for each problem, whose name stands above it; a wide table is turned."""
    names = [name for name in rows.column_names if name not in _KEY]
    lines_of: dict[str, list[list[str]]] = {}
    for row in rows.to_pylist():
        title = " · ".join(str(row[key]) for key in _KEY)
        lines_of.setdefault(title, [names]).append([_text(row[name]) for name in names])
    return dg.MetadataValue.md("\n".join(_table(title, lines) for title, lines in lines_of.items()))


def sql_description(statement: Statement) -> str:
    """The catalogue text of an answer: the question, and the file of sql/ that answers it."""
    return f"{statement.title[0].upper()}{statement.title[1:]}\n\n```sql\n{statement.text.strip()}\n```"


def picture(path: Path) -> dg.MarkdownMetadataValue:
    """An SVG file, carried in the text itself: the page has no folder to fetch it from."""
    image = b64encode(path.read_bytes()).decode()
    return dg.MetadataValue.md(f"![{path.name}](data:image/svg+xml;base64,{image})")


def _table(title: str, lines: list[list[str]]) -> str:
    if len(lines[0]) > len(lines):
        lines = [list(line) for line in zip(*lines, strict=True)]
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([f"**{title}**", "", head, "|---" * len(lines[0]) + "|", *body, ""])


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")
