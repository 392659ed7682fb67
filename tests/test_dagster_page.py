"""`make ui` and `make demo` as processes, and the page in a real browser: what a data engineer clicks and sees."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

import dagster_project

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Root in a container has no sandbox; the rest keeps Chromium from looking for its maker's servers.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Everything as the user has it, but for a Dagster home of this test's own."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(Path(dagster_project.__file__).parent / "home" / "dagster.yaml", home)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QIS_")}
    return {**kept, "DAGSTER_HOME": str(home)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def page_url(workspace, environment):
    """The page of a running `make ui`; it must end on SIGTERM as on Ctrl-C, and leave no process."""
    ui = subprocess.Popen(
        [sys.executable, "-m", "dagster_project.ui", "--out", workspace, "--port", str(free_port())],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = ui.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, line
        (group,) = children(ui.pid)
        assert len(members(group)) >= 4
        yield address[0]
    finally:
        ui.send_signal(signal.SIGTERM)
        _, rest = ui.communicate(timeout=30)
    assert (ui.returncode, rest) == (0, "stopped\n")
    assert members(group) == []
    assert not (workspace / "router.url").exists()


@pytest.fixture(scope="module")
def demo(page_url, workspace, environment):
    """`make demo` beside a running `make ui`: it sends through that one's router."""
    assert page_url
    command = [sys.executable, "-m", "dagster_project.demo", "--out", workspace, "--engine", "polars"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def page(page_url):
    if CHROMIUM is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser:
        page = browser.new_page(base_url=page_url, viewport={"width": 1500, "height": 950})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        elsewhere = []
        page.on("request", lambda request: elsewhere.append(request.url))
        yield page
        assert [url for url in elsewhere if not url.startswith((page_url, "data:", "blob:"))] == []


def test_a_site_is_materialised_by_clicking(page):
    page.goto("/assets/bcg/site_rows")
    page.get_by_role("button", name=re.compile("Materialize")).click()
    page.get_by_text("Select a partition").click()
    page.get_by_text("aronson-1948").first.click()
    page.get_by_text("Launch runs to materialize").click()  # puts the list of partitions away
    page.get_by_role("button", name="Launch 1 run").click()
    expect(page.get_by_text("Never materialized")).to_be_visible()
    expect(page.get_by_text("Never materialized")).to_be_hidden()
    page.goto("/assets/bcg/site_rows?view=partitions&partition=aronson-1948")
    expect(page.get_by_role("row", name="rows kept at the site 262")).to_be_visible()


def test_the_checks_of_a_site_pass_and_show_what_they_looked_for(page, tmp_path):
    page.goto("/assets/bcg/staged_packets")
    page.get_by_role("button", name=re.compile("Materialize")).click()
    page.get_by_text("Select a partition").click()
    page.get_by_text("aronson-1948").first.click()
    page.get_by_text("Launch runs to materialize").click()
    with page.expect_response(lambda response: "aunch" in (response.request.post_data or "")):
        page.get_by_role("button", name="Launch 1 run").click()
    page.goto("/assets/bcg/staged_packets?view=checks&checkDetail=schema_and_ranges")
    # The run's process imports Great Expectations first.
    expect(page.get_by_text("Passed", exact=True).first).to_be_visible(timeout=2 * PATIENCE_MS)
    expect(page.get_by_text("node_id to be in set")).to_be_visible()
    page.screenshot(path=tmp_path / "checks.png")


def test_the_demo_runs_beside_the_page(demo, workspace):
    assert demo.returncode == 0, demo.stderr
    assert re.search(r"REML +-0\.7145 +0\.1798", demo.stdout)
    assert (workspace / "report.html").exists()
    assert "dagster" not in demo.stderr.lower()


def test_the_page_shows_every_site_of_the_demo(page, demo):
    assert demo.returncode == 0
    page.goto("/assets/bcg/deposited_packets?view=partitions")
    expect(page.get_by_text("Materialized (13)")).to_be_visible()


def test_the_page_shows_the_pooled_answer(page, demo):
    assert demo.returncode == 0
    page.goto("/assets/bcg/pooled")
    expect(page.get_by_role("cell", name="-0.7145", exact=True)).to_be_visible()


def test_the_page_shows_the_forest_plot(page, demo):
    assert demo.returncode == 0
    page.goto("/assets/bcg/report")
    page.get_by_text("[Show Markdown]").click()
    plot = page.get_by_role("img", name="forest.svg")
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.naturalWidth") > 400


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def members(group):
    """The processes of a process group that still run, as /proc/PID/stat has them: pid (name) state parent group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found
