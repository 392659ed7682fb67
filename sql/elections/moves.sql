-- moves: how does each round of packets move the shares?
-- inputs: normal_scores, arrivals
-- output: weight, how much of `from_network`'s share is `to_network`'s after the round, up to a factor that is the same
--   for the whole round; first = round, settled: whether the rows are about all rounds from the first
-- grain: one election in time, round and ordered pair of networks
-- source: Herbster & Warmuth (1998), Machine Learning 32:151, fixed share: weights fall by exp(-1/4 loss), the loss
--   being the sum of the round's scores, then each network gives 5 % of its share to the others. 1/4: the score is
--   mixable with 2 / length where outcomes lie in an interval (V'yugin & Trunov 2019, COPA), here 4 units each side
-- answer: no
WITH losses AS (
    SELECT election, round, network, sum(score) AS loss
    FROM normal_scores
    JOIN (SELECT DISTINCT election, design FROM arrivals) AS designs USING (election)
    WHERE control = 0 AND design = 'in_time'
    GROUP BY election, round, network
),
kept AS (
    SELECT
        election, network,
        -- Rounds without forecasts do not count: they are numbered anew, from 1.
        dense_rank() OVER (PARTITION BY election ORDER BY round) AS round,
        exp(-0.25e0 * (loss - min(loss) OVER (PARTITION BY election, round))) AS weight,
        count(*) OVER (PARTITION BY election, round) AS networks
    FROM losses
)
SELECT
    old.election, old.round AS first, old.round, old.network AS from_network, new.network AS to_network,
    old.weight * CASE
        WHEN old.networks = 1 THEN 1e0
        WHEN old.network = new.network THEN 0.95e0
        ELSE 0.05e0 / (old.networks - 1)
    END AS weight,
    old.round = 1 AS settled
FROM kept AS old
JOIN kept AS new ON new.election = old.election AND new.round = old.round
