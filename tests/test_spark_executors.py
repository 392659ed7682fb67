"""Helpers that work where the rows are: distilled and deposited on the executors, the driver sees receipts."""

import polars as pl
import pyarrow as pa
import pytest

from pipelines import bcg
from pipelines.distill import distill
from pipelines.shipped import shipped
from pipelines.study import StudyError, load
from qis_connectors.client import RouterClient

pytest.importorskip("pyspark")
from pyspark.errors import PySparkException

from pipelines.distill_in_executors import distill_in_executors
from qis_connectors.spark.executors import RECEIPTS, depositing

SITES = ("aronson-1948", "stein-aronson-1953")


@pytest.fixture(scope="module")
def study():
    return load(shipped("data/bcg.yaml")).model_copy(update={"site_column": "site"})


@pytest.fixture(scope="module")
def together(spark, tmp_path_factory):
    """The rows of two sites as one Spark table that says whose they are, and the folder of each site's own."""
    folder = tmp_path_factory.mktemp("sites")
    for site in SITES:
        bcg.write_rows(bcg.trials()[site], folder / site / "rows.parquet")
        rows = pl.read_parquet(folder / site / "rows.parquet").with_columns(site=pl.lit(site))
        rows.write_parquet(folder / f"{site}.parquet")
    return spark.read.parquet(*(str(folder / f"{site}.parquet") for site in SITES)), folder


def test_packets_are_those_of_the_sites_own_distillation_to_the_bit(study, together, router):
    frame, folder = together
    alone = study.model_copy(update={"site_column": None})
    expected = [distill(alone, site, folder / site / "rows.parquet").packets for site in SITES]

    def home(site):
        return folder / site / "rows.parquet"

    packets = distill_in_executors(study, frame, home)
    receipts = packets.mapInArrow(depositing(router.url), RECEIPTS).collect()
    assert sum(receipt.stored for receipt in receipts) == len(SITES)
    with RouterClient(router.url) as client:
        stored = client.read("*").table
        assert stored.sort_by("node_id").equals(pa.concat_tables(expected).sort_by("node_id").combine_chunks())
        packets.write.format("qis").option("router", router.url).mode("append").save()
        assert client.stats()["packets"] == len(SITES)


def test_small_cells_stay_at_home_and_what_is_missing_is_named(study, together):
    frame, folder = together

    def home(site):
        return folder / site / "rows.parquet"

    strict = study.model_copy(update={"gate": study.gate.model_copy(update={"min_cell": 10_000})})
    assert distill_in_executors(strict, frame, home).count() == 0
    with pytest.raises(StudyError, match="there is no column 'clinic'; there are "):
        distill_in_executors(study.model_copy(update={"site_column": "clinic"}), frame, home)
    with pytest.raises(StudyError, match="the study says no site_column"):
        distill_in_executors(study.model_copy(update={"site_column": None}), frame, home)
    constant = frame.withColumn("vaccinated", frame.tuberculosis.isNotNull())
    with pytest.raises(PySparkException, match=r"no row has vaccinated = False \(control\)"):
        distill_in_executors(study, constant, home).count()
