"""Files that people write: read as YAML, and what is wrong in one said with its line and what was probably meant."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from qis_connectors.errors import QisError

Place = tuple[int | str, ...]
"""Where in a file: names of mappings and positions in lists, from the outside in."""


def read_mapping(path: Path, kind: str, error: type[QisError]) -> tuple[dict[str, Any], yaml.Node | None]:
    """What the YAML file at `path` holds, and its nodes, which know their lines; `error`, in one line that names file
    and line, where there is no mapping. `kind` is what the file should be: 'a study'."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as failure:
        raise error(f"{path}: {failure.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as failure:
        mark = getattr(failure, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise error(f"{where}: not YAML: {getattr(failure, 'problem', None) or failure}") from None
    if not isinstance(content, dict):
        raise error(f"{path}:1: {kind} is a mapping of names to values")
    return content, node


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error line: what was probably meant, if anything."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def line_of(node: yaml.Node | None, place: Place) -> int:
    """The line of the deepest part of `place` that is written in the file, 1-based."""
    line = 1
    for step in _descend(node, place):
        line = step
    return line


def _descend(node: yaml.Node | None, place: Place) -> Iterator[int]:
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                return
            key, node = found[0]
            yield key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            yield node.start_mark.line + 1
