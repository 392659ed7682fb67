"""docs/answers.md, what can be asked, from the headers of sql/; docs/study.schema.json and similarity.schema.json, what
a study file and a similarity definition may hold. `make docs` writes them, and tests hold them to where they are from.
"""

import json

from pipelines.shipped import shipped
from pipelines.study import schema
from pipelines.synthesize import Statement, answers, plan, statements
from qis_connectors.similarity import Definition

SCHEMA = "docs/study.schema.json"
SIMILARITY_SCHEMA = "docs/similarity.schema.json"
HEAD = """# Answers

Each is one file of [sql/](../sql), asked for by its name: `qis synthesize pooled --table my-packets`. This page is made
from their headers by `make docs`.
"""


def markdown() -> str:
    """The page: a table of the questions, then what each answer says."""
    known = statements()
    found = [known[name] for name in sorted(answers())]
    table = ["| answer | question |", "|---|---|", *(f"| [`{one.name}`](#{one.name}) | {one.title} |" for one in found)]
    return "\n".join([HEAD, *table, *map(_section, found)]) + "\n"


def study_schema() -> str:
    """The JSON Schema of a study file, as editors read it."""
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


def similarity_schema() -> str:
    """The same of a similarity definition."""
    told = {"title": "QIS similarity definition", **Definition.model_json_schema()}
    return json.dumps(told, indent=2, sort_keys=True) + "\n"


def _section(statement: Statement) -> str:
    steps = ", ".join(f"[{step.name}](../sql/{step.name}.sql)" for step in plan(statement.name)[:-1])
    return f"""
## {statement.name}

{statement.title[0].upper()}{statement.title[1:]} ([{statement.name}.sql](../sql/{statement.name}.sql))

- A row is {statement.grain}.
- It says {statement.output}.
- Source: {statement.source}.
- Made of {steps or "the packets themselves"}."""


if __name__ == "__main__":
    root = shipped("sql").parent
    (root / "docs" / "answers.md").write_text(markdown(), encoding="utf-8")
    (root / SCHEMA).write_text(study_schema(), encoding="utf-8")
    (root / SIMILARITY_SCHEMA).write_text(similarity_schema(), encoding="utf-8")
