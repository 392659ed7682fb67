import json

import pytest

from qis_connectors.address import Pattern
from qis_connectors.errors import QisError
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.request import Request, encode, parse


def test_a_plain_text_is_an_address_and_means_everything_there():
    assert parse(b"clinical.tuberculosis/bcg_vaccine") == Request(Pattern("clinical.tuberculosis/bcg_vaccine"))
    assert parse(b"clinical.*").schema == OUTCOME_PACKET_SCHEMA


def test_what_is_encoded_is_what_is_parsed():
    assert parse(encode("a/b", since=None, limit=None)) == Request(Pattern("a/b"))
    request = parse(encode("a/*", since=7, columns=["node_id", "metric_delta"], limit=3))
    assert request == Request(Pattern("a/*"), 7, ("node_id", "metric_delta"), 3)
    assert request.schema.names == ["node_id", "metric_delta"]


@pytest.mark.parametrize(
    ("ticket", "line"),
    [
        (b"", "address is empty"),
        (b"a/\xff", "request is not UTF-8: byte 2 is 0xff"),
        (b"a//b", "address 'a//b' has an empty or dotted segment ''"),
        (b"{", "request is not JSON: Expecting property name enclosed in double quotes at byte 1"),
        (b'{"a":' * 40_000, "request is not JSON this router reads: it is nested too deeply"),
        ({"v": 2}, "request field 'v': 2 is not 1, the version this router knows"),
        ({"v": True}, "request field 'v': True is not 1"),
        ({}, "request field 'address' is missing"),
        ({"address": 7}, "request field 'address': 7 is not a text"),
        ({"address": "a/\ud800"}, "request field 'address': 'a/\\ud800' is not a text"),
        ({"address": "*", "where": []}, "request field 'where' is not known to this router; it knows v, address,"),
        (b'{"v": ' + b"1" * 5000 + b"}", "request is not JSON this router reads: it has a number of thousands of"),
        (b'{"address": "' + b"a" * (1 << 18) + b'"}', "request is 262159 bytes long; at most 262144 are allowed"),
        ({"address": "*", "until": -1}, "request field 'until': -1 is not a whole number of at least 0"),
        ({"address": "*", "since": -1}, "request field 'since': -1 is not a whole number of at least 0"),
        ({"address": "*", "limit": 0}, "request field 'limit': 0 is not a whole number of at least 1"),
        ({"address": "*", "limit": 1.5}, "request field 'limit': 1.5 is not a whole number of at least 1"),
        ({"address": "*", "columns": []}, "request field 'columns' is not a list of field names"),
        ({"address": "*", "columns": [["a"]]}, "request field 'columns': ['a'] is not a field of a packet"),
        ({"address": "*", "columns": ["node_id", "node_id"]}, "request field 'columns' names a field twice"),
    ],
)
def test_what_is_no_request_is_refused_by_name(ticket, line):
    with pytest.raises(QisError) as error:
        parse(json.dumps({"v": 1, **ticket}).encode() if isinstance(ticket, dict) else ticket)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
