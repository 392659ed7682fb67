"""The candidates of an election: similarity definitions, and whom each finds similar among the sites there are."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.shipped import shipped
from qis_connectors.errors import QisError
from qis_connectors.similarity import Context, Definition, context_of, load

Places = NDArray[np.int64]

EVERYONE = "everyone"
"""Finds all sites similar: it stands in every election, has the say first and gives the scores their unit."""
OWN = "node_id"
"""The field by which a definition may look at a site's own past."""
LOTS = 4
CONTROLS = 99
"""Elections with the contexts permuted among the sites that stand beside the true one."""
FEW_CONTROLS = 19
"""The fewest that can tell 5 %."""


class NetworkError(QisError):
    """The networks cannot stand for election; the text names the file or the network."""


@dataclass(frozen=True)
class Network:
    """A definition as a candidate."""

    definition: Definition

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def uses_own(self) -> bool:
        return OWN in self.definition.fields

    @cached_property
    def said(self) -> str:
        """All that the definition says, as JSON."""
        return json.dumps(self.definition.model_dump(mode="json"), sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of that: what a forecast was made by cannot be changed behind it."""
        return hashlib.sha256(self.said.encode()).hexdigest()

    def is_for(self, domain: str) -> bool:
        """Whether `domain` is the definition's or below it."""
        return f"{domain}.".startswith(f"{self.definition.domain}.")


@dataclass(frozen=True)
class Profile:
    """A site with one of the contexts it has sent; `number` is its own among all."""

    number: int
    address: str
    node_id: str
    context: str | None


def networks_of(domain: str, folder: Path | None = None) -> list[Network]:
    """The candidates for a domain: the definitions in `folder` that are for it, and everyone.

    Without a folder those that are shipped: the domain's own in similarity/ and its rivals in data/networks. Raises
    SimilarityError, naming the file and field, or NetworkError where two have one name or the folder is none.
    """
    if folder is not None and not folder.is_dir():
        raise NetworkError(f"{folder}: is no folder of similarity definitions")
    folders = [shipped("similarity"), shipped("data/networks")] if folder is None else [folder]
    files = [path for one in folders for path in sorted(one.rglob("*.yaml"))]
    author = "QIS connectors"
    everyone = Definition(name=EVERYONE, version=1, author=author, domain=domain, threshold=0.0, fields={})
    found = {EVERYONE: Network(everyone)}
    for path in files:
        network = Network(load(path))
        if not network.is_for(domain):
            continue
        if network.name in found:
            raise NetworkError(f"{path}: a network of {domain} is called {network.name!r} already")
        found[network.name] = network
    return list(found.values())


def candidates(networks: Sequence[Network], controls: int = CONTROLS) -> dict[tuple[int, str], int]:
    """(control, network's name) -> a number for it among those of one address."""
    pairs = [(control, network.name) for control in range(controls + 1) for network in networks]
    return {pair: number for number, pair in enumerate(pairs)}


def similarities(networks: Sequence[Network], profiles: Sequence[Profile], controls: int = CONTROLS) -> pa.Table:
    """Whom each network finds similar: SIMILARITIES, with scores from the threshold on and above 0.

    `profiles` are of one address, used last at the end. In control 0 contexts are the sites' own; in the controls 1 to
    `controls` each site has the newest context of another, by a permutation of the sites with that seed, and a network
    that may look at a site's own past looks at that other's. Everyone needs no rows.
    """
    nodes = np.array([profile.node_id for profile in profiles])
    numbers = np.array([profile.number for profile in profiles], dtype=np.int64)
    newest = {profile.node_id: at for at, profile in enumerate(profiles)}
    donors = [np.arange(len(profiles)), *(_permuted(profiles, newest, seed) for seed in range(1, controls + 1))]
    numbered = candidates(networks, controls)
    parts = []
    for network in networks:
        if network.name == EVERYONE:
            continue
        scores = _scores(network, profiles, donors[0])
        for control, places in enumerate(donors):
            if network.uses_own:
                shown = _scores(network, profiles, places)
            else:
                shown = np.where(nodes[:, None] == nodes[None, :], 0.0, scores[np.ix_(places, places)])
            one, other = np.nonzero(shown)
            parts.append(
                {
                    "candidate": np.full(len(one), numbered[control, network.name], dtype=np.int64),
                    "profile": numbers[one],
                    "other": numbers[other],
                    "score": shown[one, other],
                    "uses_own": np.full(len(one), network.uses_own),
                }
            )
    tables = [pa.table({name: pa.array(column) for name, column in part.items()}, SIMILARITIES) for part in parts]
    return pa.concat_tables([SIMILARITIES.empty_table(), *tables])


SIMILARITIES = pa.schema(
    [
        ("candidate", pa.int64()),
        ("profile", pa.int64()),
        ("other", pa.int64()),
        ("score", pa.float64()),
        ("uses_own", pa.bool_()),
    ]
)


def _scores(network: Network, profiles: Sequence[Profile], places: Places) -> NDArray[np.float64]:
    """Of each profile with each, both having the contexts of those at `places`; 0 below the threshold.

    Whose packets the others are stays as it is: only whose past a site looks at is permuted.
    """
    given = [_context(profiles[at]) for at in places]
    shown = [{**context, OWN: profile.node_id} for context, profile in zip(given, profiles, strict=True)]
    encoded = network.definition.encode(shown)
    scores = np.array([network.definition.scores(context, encoded) for context in given])
    return np.where(scores < network.definition.threshold, 0.0, scores)


def _context(profile: Profile) -> Context:
    """What the packet says of its site, and what an election knows of it."""
    lot = int(hashlib.sha256(profile.node_id.encode()).hexdigest(), 16) % LOTS
    return {**context_of(profile.context), OWN: profile.node_id, "lot": lot}


def _permuted(profiles: Sequence[Profile], newest: dict[str, int], seed: int) -> Places:
    """For each profile the place of the one whose context it is given."""
    sites = sorted(newest)
    drawn = np.random.default_rng(seed).permutation(len(sites))
    donor = {site: newest[sites[to]] for site, to in zip(sites, drawn, strict=True)}
    return np.array([donor[profile.node_id] for profile in profiles], dtype=np.int64)
