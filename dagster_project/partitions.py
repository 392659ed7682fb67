"""What a study is divided into on the page: its sites, and its months where it has any."""

from datetime import date

import dagster as dg

from pipelines.sources import Source

MONTH = "%Y-%m"


def parts_of(source: Source) -> dg.PartitionsDefinition[str]:
    """A partition for each site; for each site and month of a study with months."""
    sites = dg.StaticPartitionsDefinition(list(source.sites))
    if not source.months:
        return sites
    # A study that comes with the code has ended; one of the workspace goes on.
    end = after(source.months[-1]) if source.first else None
    months = dg.MonthlyPartitionsDefinition(start_date=source.months[0], end_date=end, fmt=MONTH)
    return dg.MultiPartitionsDefinition({"site": sites, "month": months})


def part(site: str, month: str) -> str:
    """The key of a site's partition; `month` is empty in a study without."""
    return dg.MultiPartitionKey({"site": site, "month": month}) if month else site


def site_and_month(context: dg.AssetExecutionContext) -> tuple[str, str]:
    """What a run is of."""
    return split(context.partition_key)


def split(key: str) -> tuple[str, str]:
    """Site and month of a partition's key."""
    if isinstance(key, dg.MultiPartitionKey):
        return key.keys_by_dimension["site"], key.keys_by_dimension["month"]
    return key, ""


def after(month: str) -> str:
    """2013-12 -> 2014-01."""
    day = date.fromisoformat(f"{month}-01")
    return f"{day.year + day.month // 12}-{day.month % 12 + 1:02}"


def before(day: date) -> str:
    """The last month that was over on `day`."""
    return f"{day.year - (day.month == 1)}-{(day.month - 2) % 12 + 1:02}"
