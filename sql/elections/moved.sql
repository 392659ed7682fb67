-- moved: how have all rounds up to each moved the shares? One step of the search for it
-- inputs: moves
-- repeat: moves
-- output: the columns of moves, for the rounds `first` to `round`, which each step makes twice as many
-- grain: one election, round and ordered pair of networks
-- source: Hillis & Steele (1986), CACM 29:1170: prefix sums in parallel, here products of matrices; dividing each by
--   its largest entry, which shares do not feel, keeps them from vanishing
-- answer: no
WITH doubled AS (
    SELECT
        after.election, before.first, after.round, before.from_network, after.to_network,
        sum(before.weight * after.weight) AS weight
    FROM moved AS after
    JOIN moved AS before
        ON before.election = after.election
        AND before.round = after.first - 1
        AND before.to_network = after.from_network
    WHERE NOT after.settled
    GROUP BY after.election, before.first, after.round, before.from_network, after.to_network
)
SELECT
    election, first, round, from_network, to_network,
    weight / max(weight) OVER (PARTITION BY election, round) AS weight,
    first = 1 AS settled
FROM doubled
UNION ALL
SELECT election, first, round, from_network, to_network, weight, settled
FROM moved
WHERE settled
