"""How a site puts an outcome into a packet's fields: how sure, how good among its own, and settings as one text."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from math import ceil, erf, sqrt


def confidence(effect: float, stderr: float) -> float:
    """1 - two-sided p of the effect, normal: erf(|z| / sqrt 2) (Abramowitz & Stegun 1964, 26.2.29)."""
    return erf(abs(effect) / stderr / sqrt(2))


def compact_json(value: Mapping[str, object]) -> str:
    """The one text of an object, keys sorted and no spaces, so that equal settings are equal packets.

    Raises ValueError for NaN and infinities, which are not JSON, and TypeError for what is no JSON value.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def deciles(outcomes: Sequence[float]) -> list[int]:
    """The mid-rank decile, 1..10, of each outcome among all of them; a larger outcome is a better one.

    ceil(10 * (rank - 0.5) / n), equal outcomes sharing their average rank: one single outcome is 5.
    """
    ranked = sorted(outcomes)
    # Average rank - 0.5 is half of (how many are smaller + how many are not larger): integers, so no rounding at edges.
    return [
        ceil(5 * (bisect_left(ranked, outcome) + bisect_right(ranked, outcome)) / len(ranked)) for outcome in outcomes
    ]
