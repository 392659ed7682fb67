"""Interest profiles: what a node has said it wants to hear of, kept across restarts.

A profile is a context, a threshold, a definition and an address pattern. Other nodes' packets that match it reach
whoever follows it, as they arrive; they are its readers' filter and nothing is queued for them. They are kept in
`profiles.db` in the store's folder, SQLite like the catalogue, so that an answer means that it is on the disk.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import apsw

from qis_connectors.address import Pattern
from qis_connectors.errors import QisError
from qis_connectors.filters import Condition, Filter
from qis_connectors.request import Request, SimilarTo, parse_profile, parse_similar, text_field
from qis_connectors.router.packet_log.store import StoreError
from qis_connectors.router.similar import Similar, threshold_of
from qis_connectors.similarity import context_of

MAX_PROFILES = 100_000
MAX_PROFILES_PER_NODE = 16
MAX_NAME = 256
MIN_CONTEXTS = 20
"""From so many distinct contexts on, a profile that every one of them matches is seen to be no choice."""

logger = logging.getLogger(__name__)


class ProfileError(QisError):
    """No such profile, or one that the router does not take; the text says what is wrong with it."""


@dataclass(frozen=True)
class Profile:
    """`context` is JSON text; the definition and the threshold are those it was registered under."""

    node_id: str
    address: str
    context: str
    threshold: float
    definition: str

    @property
    def id(self) -> str:
        """The same for the same profile, so that registering again changes nothing."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:32]

    @property
    def similar_to(self) -> SimilarTo:
        return SimilarTo(self.context, self.threshold, self.definition)

    def told(self) -> dict[str, Any]:
        return {"profile": self.id, **asdict(self), "context": context_of(self.context)}


class Profiles:
    """Those of the store in `folder`."""

    def __init__(self, folder: Path, similar: Similar) -> None:
        self._similar = similar
        self._changing = Lock()
        self._database, self._known = _opened(folder / "profiles.db")
        self._per_node = Counter(profile.node_id for profile in self._known.values())

    def register(self, body: bytes, caller: str | None) -> dict[str, Any]:
        """The profile in the body of an action, once it is on the disk; ProfileError where it is not taken.

        `caller`, here and below: the node that asks, whose own profiles these then have to be; None: any node's.
        """
        similar_to, fields = parse_similar(body, "node_id", "address")
        for name in ("node_id", "address"):
            if not fields.get(name):
                raise ProfileError(f"profile field {name!r} is missing")
        pattern = Pattern(text_field("address", fields["address"]))
        definition = self._similar.definition(similar_to, pattern)
        threshold = threshold_of(similar_to, definition)
        node_id = text_field("node_id", fields["node_id"])
        if len(node_id) > MAX_NAME:
            raise ProfileError(
                f"profile field 'node_id' is {len(node_id)} letters long; at most {MAX_NAME} are allowed"
            )
        if caller not in (None, node_id):
            raise ProfileError(f"profile field 'node_id': {node_id!r:.60} is not {caller!r}, who asks")
        profile = Profile(node_id, pattern.text, similar_to.context, threshold, definition.name)
        if profile.id not in self._known:
            self._check_choice(profile)
            self._keep(profile)
        return profile.told()

    def drop(self, body: bytes, caller: str | None) -> dict[str, Any]:
        name = parse_profile(body)
        with self._changing:
            profile = self._named(name, caller)
            self._database.execute("DELETE FROM profile WHERE id = ?", (name,))
            self._per_node[profile.node_id] -= 1
            del self._known[name]
        return profile.told()

    def told(self) -> Iterator[dict[str, Any]]:
        """Each of them."""
        for profile in list(self._known.values()):
            yield profile.told()

    def expanded(self, request: Request, caller: str | None) -> Request:
        """The request as its profile has it: other nodes' packets at the profile's address, similar to its context."""
        if request.profile is None:
            return request
        profile = self._named(request.profile, caller)
        others: Filter = Condition("node_id", "!=", (profile.node_id,))
        return replace(request, pattern=Pattern(profile.address), where=others, similar_to=profile.similar_to)

    def close(self) -> None:
        self._database.close()

    def _named(self, name: str, caller: str | None) -> Profile:
        profile = self._known.get(name)
        if profile is None or caller not in (None, profile.node_id):
            raise ProfileError(f"profile {name!r:.60} is not known to this router: register it, perhaps again")
        return profile

    def _keep(self, profile: Profile) -> None:
        with self._changing:
            if len(self._known) >= MAX_PROFILES:
                raise ProfileError(f"the router keeps {MAX_PROFILES} profiles and no more; drop some first")
            if self._per_node[profile.node_id] >= MAX_PROFILES_PER_NODE:
                raise ProfileError(
                    f"node {profile.node_id!r:.60} has {MAX_PROFILES_PER_NODE} profiles and may have no more; drop one"
                )
            try:
                told = json.dumps(asdict(profile))
                self._database.execute("INSERT OR IGNORE INTO profile VALUES (?, ?)", (profile.id, told))
            except (apsw.FullError, apsw.IOError) as error:
                raise StoreError(f"the router cannot keep the profile: {error}") from None
            if profile.id not in self._known:
                self._per_node[profile.node_id] += 1
            self._known[profile.id] = profile

    def _check_choice(self, profile: Profile) -> None:
        """ProfileError where everything matches, or nothing ever can."""
        definition, own = self._similar.definitions.named(profile.definition), context_of(profile.context)
        if not definition.fields:
            raise ProfileError(f"profile matches everything: definition {definition.name!r} finds all contexts alike")
        if profile.threshold == 0:
            raise ProfileError("profile matches everything: its threshold is 0; every score is at least that")
        best = definition.best_score(own)
        if best < profile.threshold:
            lacking = [name for name in definition.fields if own.get(name) is None] or list(definition.fields)
            raise ProfileError(
                f"profile matches nothing: the best score its context can have is {best:.3g}, below the threshold "
                f"{profile.threshold:g}; of {', '.join(lacking)} it says nothing that can be compared"
            )
        matching, known = self._similar.index(definition).share(own, profile.threshold)
        if matching == known >= MIN_CONTEXTS:
            raise ProfileError(
                f"profile matches everything: all {known} contexts here score at least {profile.threshold:g} with it; "
                "raise the threshold, or read the address without a profile"
            )


def _opened(path: Path) -> tuple[apsw.Connection, dict[str, Profile]]:
    """The database, and what is in it. One that cannot be read is put aside: packets are served all the same."""
    try:
        return _read(path)
    except (apsw.Error, ValueError, TypeError):
        logger.exception("the profiles cannot be read; they are put aside as %s.damaged", path.name)
    path.rename(path.with_suffix(".db.damaged"))
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return _read(path)


def _read(path: Path) -> tuple[apsw.Connection, dict[str, Profile]]:
    database = apsw.Connection(str(path))
    try:
        database.pragma("journal_mode", "wal")
        database.pragma("synchronous", "full")
        database.execute("CREATE TABLE IF NOT EXISTS profile(id TEXT PRIMARY KEY, told TEXT NOT NULL)")
        rows = database.execute("SELECT id, told FROM profile ORDER BY rowid").fetchall()
        return database, {str(name): Profile(**json.loads(str(told))) for name, told in rows}
    except BaseException:
        database.close()
        raise
