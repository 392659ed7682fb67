"""The router's log as an operator reads it: one line an event, nothing of a packet in it, an id for each failure."""

import json
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from pyarrow import flight

from qis_connectors import QisError
from qis_connectors.client import RouterClient
from qis_connectors.packet import INTERCHANGE_SCHEMA
from qis_connectors.router import refusals
from qis_connectors.router.refusals import Refusals

HERE = "clinical.tuberculosis/bcg_vaccine"


@contextmanager
def logging_router(folder, form):
    """(URL, the lines so far, the end of them) of `qis router --log form`; each line as it comes."""
    code = "from pipelines.cli import main; main()"
    command = [sys.executable, "-c", code, "router", "--listen", "grpc://127.0.0.1:0", "--store", str(folder)]
    with subprocess.Popen([*command, "--log", form], stderr=subprocess.PIPE, text=True) as process:
        try:
            first = process.stderr.readline()

            def rest():
                process.send_signal(signal.SIGTERM)
                lines = process.stderr.read().splitlines()
                assert process.wait(10) == 0
                return lines

            yield re.search(r"grpc://[\d.:]+", first).group(), first, rest
        finally:
            process.kill()


def refused(url, packets):
    with flight.connect(url) as client:
        bad = packets(2, intervention_params="secret")
        writer, _ = client.do_put(flight.FlightDescriptor.for_path(HERE), INTERCHANGE_SCHEMA)
        writer.write_table(bad)
        with pytest.raises(flight.FlightServerError, match="secret"):
            writer.close()


def test_json_lines(tmp_path, packets):
    with logging_router(tmp_path, "json") as (url, first, rest):
        with RouterClient(url) as client:
            client.deposit(packets(3))
            for _ in range(5):
                refused(url, packets)
        lines = [json.loads(line) for line in (first, *rest())]
    assert [line["event"] for line in lines] == ["started", "refused", "stopping", "stopped"]
    assert all(line["level"] and line["logger"].startswith("qis_connectors.router") for line in lines)
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", line["timestamp"]) for line in lines)
    assert (lines[0]["url"], lines[0]["folder"], lines[0]["cursor"]) == (url, str(tmp_path), 0)
    assert (
        lines[1] | {"rpc": "DoPut", "reason": "packet", "field": "intervention_params", "row": 0, "unlogged": 0}
        == lines[1]
    )
    assert lines[1]["peer"].startswith("ipv4:127.0.0.1:")
    assert lines[3]["cursor"] == 3
    assert "secret" not in json.dumps(lines)
    with logging_router(tmp_path, "json") as (_, first, rest):
        assert json.loads(first)["cursor"] == 3
        rest()


def test_text_lines(tmp_path, packets):
    with logging_router(tmp_path, "text") as (url, first, rest):
        refused(url, packets)
        lines = [first, *rest()]
    assert [re.search(r"\] (\w+) ", line).group(1) for line in lines] == ["started", "refused", "stopping", "stopped"]
    assert "secret" not in "".join(lines)
    assert "\x1b" not in "".join(lines), "colours are for terminals"


def test_refusals_are_counted_all_and_logged_now_and_then(caplog, monkeypatch):
    monkeypatch.setattr(refusals, "LOG_SECONDS", 0.3)
    noted = Refusals()
    for _ in range(100):
        noted.note("DoPut", "packet")
    noted.note("DoGet", "address")
    assert [record.rpc for record in caplog.records] == ["DoPut", "DoGet"]
    monkeypatch.setattr(refusals, "LOG_SECONDS", 0)
    noted.note("DoPut", "packet")
    assert [record.unlogged for record in caplog.records] == [0, 0, 99]
    assert noted.counts() == {("DoPut", "packet"): 101, ("DoGet", "address"): 1}


def test_a_failure_has_an_id_that_the_client_is_told_too(router, caplog):
    router._packets.store.identity = object()  # nothing that JSON knows
    with flight.connect(router.url) as client, pytest.raises(flight.FlightServerError) as error:
        list(client.do_action("health"))
    (found,) = re.findall(
        r"^the router failed on this call; its log has the details under (\w{12})\.", str(error.value)
    )
    (record,) = [record for record in caplog.records if record.message == "failed"]
    assert (record.rpc, record.error_id) == ("DoAction", found)
    assert "not JSON serializable" in record.exc_text
    assert "Traceback" not in str(error.value)
    assert router._server.status.refusals.counts() == {("DoAction", "failed"): 1}


def test_our_client_says_what_the_router_said(router, monkeypatch):
    monkeypatch.setattr("qis_connectors.router.calls.MAX_STREAMS", 0)
    with RouterClient(router.url) as client, pytest.raises(QisError) as error:
        client.read("*")
    assert str(error.value).endswith("0 streams are open at this router; try again later")
    assert "\n" not in str(error.value)
