"""Addresses are deterministic, reversible, and tell a pattern from an address."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qis_connectors import address
from qis_connectors.address import AddressError, Pattern

PART = st.text(min_size=1, max_size=20).filter(lambda text: text not in (".", "..") and text.isprintable())


@given(st.lists(PART, min_size=2, max_size=4))
def test_parts_come_back_whatever_they_hold(names):
    made = address.of(*names)
    assert list(address.parts(made)) == names
    assert made.isascii()
    assert Pattern(made).is_exact
    assert Pattern(made).matches(made)


def test_a_column_of_addresses_is_of_row_by_row():
    domain = pa.array(["clinical.tb", "a b", "clinical.tb"])
    problem = pa.array(["bcg", "c/d", "x*"])
    assert address.column(domain, problem).to_pylist() == ["clinical.tb/bcg", "a%20b/c%2Fd", "clinical.tb/x%2A"]


@pytest.mark.parametrize(
    ("wrong", "culprit"),
    [
        ("clinical", "no problem type"),
        ("clinical/", "''"),
        ("/x", "''"),
        ("clinical/../x", "'..'"),
        ("clinical/a b", "'a b'"),
        ("clinical/%2f", "'%2f'"),
        ("clinical/%ff", "'%ff'"),
        ("clinical/caf\u00e9", "caf"),
        ("clinical/" + "x" * 600, "609 bytes"),
    ],
)
def test_what_is_no_address_is_refused_by_name(wrong, culprit):
    with pytest.raises(AddressError, match=culprit.replace(".", r"\.")):
        address.check(wrong)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("clinical.tb/bcg", {"clinical.tb/bcg"}),
        ("clinical.tb", {"clinical.tb/bcg", "clinical.tb/bcg/ward-3"}),
        ("clinical.tb/bcg/", {"clinical.tb/bcg/ward-3"}),
        ("clinical.*", {"clinical.tb/bcg", "clinical.tb/bcg/ward-3", "clinical.hiv/x"}),
        ("clinical", set()),
        ("*/x", {"clinical.hiv/x", "train/x"}),
        ("train/[xy]", {"train/x"}),
        ("clinical.hi?/x", {"clinical.hiv/x"}),
        ("*", {"clinical.tb/bcg", "clinical.tb/bcg/ward-3", "clinical.hiv/x", "train/x"}),
    ],
)
def test_exact_prefix_and_glob(pattern, found):
    known = ["clinical.tb/bcg", "clinical.tb/bcg/ward-3", "clinical.hiv/x", "train/x"]
    assert {one for one in known if Pattern(pattern).matches(one)} == found


@pytest.mark.parametrize("wrong", ["", "a//", "clinical/../", "x" * 600])
def test_a_pattern_that_can_match_nothing_is_refused(wrong):
    with pytest.raises(AddressError):
        Pattern(wrong)
