"""What a router does with similarity: whose definition a reader goes by, which packets that keeps, who is similar."""

import json
from threading import Lock
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from qis_connectors.address import Pattern
from qis_connectors.kernels import Scores
from qis_connectors.request import RequestError, SimilarTo, integer_field, parse_similar
from qis_connectors.router.contexts import Contexts
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.selection import Scorer
from qis_connectors.similarity import Context, Definition, Definitions, context_of

MAX_SIMILAR = 10_000
"""Contexts that one look-up tells of; 100 where it asks for no number."""


class Similar:
    """The definitions of one router, each with its index of the contexts in the log, made when first asked for."""

    def __init__(self, log: PacketLog, definitions: Definitions) -> None:
        self.definitions = definitions
        self._log = log
        self._indexes: dict[str, Contexts] = {}
        self._making = Lock()

    def definition(self, similar_to: SimilarTo, pattern: Pattern) -> Definition:
        """The one that is named, else that of the pattern's domain; RequestError or SimilarityError where none is."""
        if similar_to.definition is not None:
            return self.definitions.named(similar_to.definition)
        domain = pattern.text.partition("/")[0]
        found = None if pattern.is_glob else self.definitions.of_domain(unquote(domain))
        if found is None:
            known = ", ".join(sorted(self.definitions.by_name)) or "none"
            why = f"request field 'definition' is missing: {pattern.text!r:.60} is of no domain that has one"
            raise RequestError(f"{why}; known: {known}")
        return found

    def scorer(self, similar_to: SimilarTo | None, pattern: Pattern) -> Scorer | None:
        """What scores packets for such a reader."""
        if similar_to is None:
            return None
        definition = self.definition(similar_to, pattern)
        own, index = context_of(similar_to.context), self.index(definition)
        least = threshold_of(similar_to, definition)
        index.keep_up()

        def score(packets: pa.RecordBatch) -> Scores:
            scores = index.scores_of(own, packets)
            return np.where(scores >= least, scores, np.nan)

        return score

    def look_up(self, body: bytes) -> dict[str, Any]:
        """Who is similar to a context: the answer to the action of that name."""
        similar_to, fields = parse_similar(body, "limit")
        definition = self.definition(similar_to, Pattern("*"))
        most = integer_field("limit", fields.get("limit", 100), least=1)
        least = threshold_of(similar_to, definition)
        found = self.index(definition).similar(context_of(similar_to.context), least, min(most, MAX_SIMILAR))
        return {
            "definition": definition.name,
            "version": definition.version,
            "threshold": least,
            "similar": [{"context": _told(context), "score": score} for context, score in found],
        }

    def index(self, definition: Definition) -> Contexts:
        with self._making:
            if definition.name not in self._indexes:
                self._indexes[definition.name] = Contexts(definition, self._log)
            return self._indexes[definition.name]

    def close(self) -> None:
        for index in self._indexes.values():
            index.close()


def threshold_of(similar_to: SimilarTo, definition: Definition) -> float:
    return definition.threshold if similar_to.threshold is None else similar_to.threshold


def _told(context: Context) -> Context:
    """As JSON has it, which knows no infinity."""
    text = json.dumps(context)
    return dict(json.loads(text, parse_constant=lambda _: None))
