"""An election over packets: what each network expected of them, then scores, shares and terms; all in sql/elections."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.elections.networks import CONTROLS, Network, Profile, candidates, similarities
from pipelines.sql_engine import Connection, SqlEngine, engine_on
from pipelines.synthesize import SQL_FOLDER, plan, run

FOLDERS = (SQL_FOLDER, SQL_FOLDER / "elections")
ANSWERS = ("election", "shares")
KEY = ("network", "address", "metric_name", "intervention_type", "packet_id")
"""What a forecast in time is of; `design` is 'in_time'."""


class Election:
    """The election over the relation `packets` of `connection` (DuckDB's or a Spark session), as `synthesize` reads it.

    `networks`: the candidates by address; packets at other addresses do not take part. `controls`: how many elections
    with permuted contexts stand beside the true one.
    """

    def __init__(
        self, connection: Connection, networks: Mapping[str, Sequence[Network]], controls: int = CONTROLS
    ) -> None:
        self._engine: SqlEngine = engine_on(connection)
        self._made: set[str] = set()
        names = [
            {"address": address, "candidate": candidate, "control": control, "network": name}
            for address, found in networks.items()
            for (control, name), candidate in candidates(found, controls).items()
        ]
        self._engine.bind("networks", pa.Table.from_pylist(names, _NETWORKS))
        self._make("arrivals")
        scored = [similarities(networks[address], profiles, controls) for address, profiles in self._profiles().items()]
        self._engine.bind("similarities", pa.concat_tables([similarities([], []), *scored]))

    def foreseen(self) -> pa.Table:
        """sql/elections/foreseen.sql: what each network expected of each packet, in every control and design."""
        self._make("foreseen")
        return self._engine.table("foreseen")

    def answers(self, forecasts: pa.Table) -> dict[str, pa.Table]:
        """The rows of `election` and `shares`, scored by `forecasts`: foreseen's columns, and replayed (bool)."""
        self._engine.bind("forecasts", forecasts)
        self._make(*ANSWERS)
        return {name: self._engine.table(name) for name in ANSWERS}

    def _make(self, *names: str) -> None:
        for step in plan(*names, folders=FOLDERS):
            if step.name not in self._made:
                run(self._engine, step)
                self._made.add(step.name)

    def _profiles(self) -> dict[str, list[Profile]]:
        """Of each address, the one that was used last at the end."""
        columns = ["profile", "address", "node_id", "context", "timestamp_utc"]
        rows = self._engine.table("arrivals").select(columns)
        rows = rows.group_by(columns[:4]).aggregate([("timestamp_utc", "max")])
        found = defaultdict(list)
        for row in rows.sort_by([("timestamp_utc_max", "ascending"), ("profile", "ascending")]).to_pylist():
            found[row["address"]].append(Profile(row["profile"], row["address"], row["node_id"], row["context"]))
        return found


_NETWORKS = pa.schema(
    [("address", pa.string()), ("candidate", pa.int64()), ("control", pa.int64()), ("network", pa.string())]
)


def replay(forecasts: pa.Table) -> pa.Table:
    """foreseen's rows as forecasts of which none was made in advance."""
    return forecasts.append_column("replayed", pa.repeat(pa.scalar(True), forecasts.num_rows))


def is_true_in_time(forecasts: pa.Table) -> pa.ChunkedArray:
    """Which of foreseen's rows are of the sites' own contexts and know only what was earlier: those that are kept."""
    return pc.and_(pc.equal(forecasts["control"], 0), pc.equal(forecasts["design"], "in_time"))
