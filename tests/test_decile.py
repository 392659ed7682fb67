import pytest
from hypothesis import given
from hypothesis import strategies as st

from qis_connectors.decile import deciles


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
