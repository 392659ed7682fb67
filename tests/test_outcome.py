"""What a site says of its own outcome."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qis_connectors.outcome import compact_json, confidence, deciles


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], []),
        ([0.3], [5]),
        ([2.0, 1.0], [8, 3]),
        ([7, 7, 7, 7], [5, 5, 5, 5]),
        (list(range(1, 11)), list(range(1, 11))),
        (list(range(20)), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10]),
        ([1, 1, 2], [4, 4, 9]),
    ],
)
def test_mid_rank_deciles(outcomes, expected):
    assert deciles(outcomes) == expected


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_deciles_are_in_range_and_in_the_order_of_the_outcomes(outcomes):
    found = deciles(outcomes)
    assert set(found) <= set(range(1, 11))
    in_order = [decile for _, decile in sorted(zip(outcomes, found, strict=True))]
    assert in_order == sorted(found)


def test_confidence_is_one_minus_the_two_sided_p():
    assert confidence(1.959963984540054, 1) == confidence(-1.959963984540054, 1) == pytest.approx(0.95, abs=1e-15)
    assert confidence(0, 1) == 0


def test_equal_settings_are_one_text_and_what_is_not_json_is_refused():
    assert compact_json({"b": 1, "a": "\u6771"}) == compact_json({"a": "\u6771", "b": 1}) == '{"a":"\u6771","b":1}'
    for wrong in (float("nan"), float("inf"), object()):
        with pytest.raises((ValueError, TypeError)):
            compact_json({"a": wrong})
