"""Roll up, then gate: cohorts too small to leave join neighbours along the study's hierarchy before one is dropped."""

from collections.abc import Callable

from pipelines.cohorts import Cohort, merged
from pipelines.counting import Value
from pipelines.study import Study


def roll_up(
    study: Study, found: list[Cohort], names: tuple[str, ...], is_too_small: Callable[[Cohort], bool]
) -> tuple[list[Cohort], list[Cohort]]:
    """Cohorts that may leave, and those that may not. No row is in two of them.

    From the finest level up: the small cohorts of one place are merged. If they are too small together, the smallest
    that could leave joins them (complementary suppression, Willenborg & de Waal 2001, ch. 4), until they may leave
    or nothing is left to join; then they go on to the next level. Totals are never sent, so none can be subtracted.
    """
    may: list[Cohort] = []
    small: list[Cohort] = []
    for cohort in found:
        (small if is_too_small(cohort) else may).append(cohort)
    for level in range(len(study.rollup) - 1, -1, -1):
        waiting, small = small, []
        for family in _families(waiting, level):
            place = family[0].place[:level]
            one = family[0]
            for other in family[1:]:
                one = merged(study, one, other, place, names)
            while is_too_small(one) and (kin := [near for near in may if _is_kin(near, one, place)]):
                near = min(kin, key=lambda cohort: cohort.summary.records if cohort.summary else 0)
                may.remove(near)
                one = merged(study, one, near, place, names)
            (small if is_too_small(one) else may).append(one)
    return may, small


def _families(cohorts: list[Cohort], level: int) -> list[list[Cohort]]:
    found: dict[tuple[tuple[Value, ...], Value, tuple[Value, ...]], list[Cohort]] = {}
    for cohort in cohorts:
        found.setdefault((cohort.stratum, cohort.period, cohort.place[:level]), []).append(cohort)
    return list(found.values())


def _is_kin(near: Cohort, one: Cohort, place: tuple[Value, ...]) -> bool:
    return (near.stratum, near.period, near.place[: len(place)]) == (one.stratum, one.period, place)
