"""What DoAction does: each action a JSON object in, and JSON objects out.

begin, commit, abort: see transactions.py; definitions, similar: see similar.py; register_profile, profiles,
drop_profile: see profiles.py; quarantine: see quarantine.py.
"""

import json
from collections.abc import Iterable
from typing import Any

from qis_connectors.request import RequestError, check_begin, parse_commit, parse_transaction
from qis_connectors.router.access import Verb
from qis_connectors.router.profiles import Profiles
from qis_connectors.router.similar import Similar
from qis_connectors.router.status import Status
from qis_connectors.router.transactions import Transactions

DESCRIPTIONS = {
    "health": "whether the router serves, and which store",
    "stats": "what the store holds, and what goes in and out",
    "quarantine": "evidence: packets that contradict what their node had signed before",
    "begin": 'a new transaction; {"v": 1} gives {"transaction": ID}',
    "commit": 'all of a transaction becomes visible; {"transaction": ID} gives its receipt, however often; with "key", '
    "a name of the client's for this work, only where no transaction was committed under it before",
    "abort": 'all of a transaction is dropped; {"transaction": ID}',
    "definitions": "the similarity definitions that readers can name, a result each",
    "similar": 'the known contexts that are similar to {"v": 1, "context": {...}, "definition": NAME}, best first',
    "register_profile": 'interest in {"v": 1, "node_id": ..., "address": ..., "context": {...}} gives {"profile": ID}',
    "profiles": "those that are registered, a result each",
    "drop_profile": 'ends {"profile": ID}',
}
# What is known of contexts, interests and evidence is known of all addresses, whoever may read them.
VERBS: dict[str, Verb] = {
    **dict.fromkeys(("stats", "quarantine", "similar", "profiles"), "operate"),
    **dict.fromkeys(("begin", "commit", "abort"), "deposit"),
}


class Actions:
    """Of one router."""

    def __init__(self, status: Status, transactions: Transactions, similar: Similar, profiles: Profiles) -> None:
        self._status, self._transactions, self._similar, self._profiles = status, transactions, similar, profiles

    def answer(self, action: str, body: bytes, node_id: str | None, who: str) -> Iterable[dict[str, Any]]:
        """`node_id`: whose transactions and profiles these have to be, anybody's where it is None; `who` is written to
        the audit log. RequestError where there is no such action.
        """
        store = self._status.log.store.identity
        match action:
            case "health":
                return [{"status": "ok", "store": store, "cursor": self._status.log.head}]
            case "stats":
                return [self._status.stats()]
            case "quarantine":
                return self._status.quarantine.entries()
            case "begin" | "commit" | "abort":
                answer = self._transact(action, body, node_id or "")
                decision = ", ".join(f"{name} {answer[name]}" for name in ("stored", "duplicates") if name in answer)
                self._status.audit.record(who, action, answer["transaction"], decision or "done")
                return [answer]
            case "definitions":
                return [one.model_dump() for one in self._similar.definitions.by_name.values()]
            case "similar":
                return [self._similar.look_up(body)]
            case "profiles":
                return self._profiles.told()
            case "register_profile":
                return [self._profiles.register(body, node_id)]
            case "drop_profile":
                return [self._profiles.drop(body, node_id)]
        raise RequestError(f"action {action!r:.60} is not known to this router; it knows {', '.join(DESCRIPTIONS)}")

    def _transact(self, action: str, body: bytes, owner: str) -> dict[str, Any]:
        if action == "begin":
            check_begin(body)
            return {"transaction": self._transactions.begin(owner)}
        if action == "commit":
            transaction, key = parse_commit(body)
            receipt = self._transactions.commit(transaction, owner, key)
            return {"transaction": transaction, **json.loads(receipt.encode())}
        transaction = parse_transaction(body)
        self._transactions.abort(transaction, owner)
        return {"transaction": transaction}
