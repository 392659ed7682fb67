-- shares: how much of the say had each network, before and after each round, and what did that cost?
-- inputs: normal_scores, arrivals, moved
-- output: timestamp_utc of the round (Unix epoch, ms); packets scored in it; score, their mean for this network;
--   share_before the round and share_after it, 0 to 1, equal at the start; loss, the network's sum of scores so far;
--   regret, what following the networks in proportion to their shares has cost so far beyond the network that was
--   best up to now, in units (negative: less)
-- grain: one election in time, round with forecasts, and network
-- source: as in moves; regret: Cesa-Bianchi & Lugosi (2006), Prediction, Learning, and Games, ch. 2
-- answer: yes
WITH scored AS (
    SELECT
        election, round AS arrival_round, network, count(*) AS packets, avg(score) AS score, sum(score) AS loss,
        dense_rank() OVER (PARTITION BY election ORDER BY round) AS round
    FROM normal_scores
    WHERE control = 0
    GROUP BY election, round, network
),
summed AS (
    SELECT election, round, to_network AS network, sum(weight) AS weight
    FROM moved
    GROUP BY election, round, to_network
),
shared AS (
    SELECT election, round, network, weight / sum(weight) OVER (PARTITION BY election, round) AS share
    FROM summed
),
costs AS (
    SELECT
        scored.election, scored.arrival_round, scored.round, scored.network, scored.packets, scored.score,
        coalesce(old.share, 1e0 / count(*) OVER (PARTITION BY scored.election, scored.round)) AS share_before,
        new.share AS share_after,
        scored.loss AS round_loss,
        sum(scored.loss) OVER (PARTITION BY scored.election, scored.network ORDER BY scored.round) AS loss
    FROM scored
    JOIN shared AS new
        ON new.election = scored.election AND new.round = scored.round AND new.network = scored.network
    LEFT JOIN shared AS old
        ON old.election = scored.election AND old.round = scored.round - 1 AND old.network = scored.network
),
followed AS (
    SELECT election, round, sum(share_before * round_loss) AS followed, min(loss) AS best
    FROM costs
    GROUP BY election, round
),
regrets AS (
    SELECT election, round, sum(followed) OVER (PARTITION BY election ORDER BY round) - best AS regret
    FROM followed
),
times AS (
    SELECT
        election, round AS arrival_round, address, metric_name, intervention_type, min(timestamp_utc) AS timestamp_utc
    FROM arrivals
    GROUP BY election, round, address, metric_name, intervention_type
)
SELECT
    address, metric_name, intervention_type, round, timestamp_utc, network, packets, score, share_before, share_after,
    loss, regret
FROM costs
JOIN regrets USING (election, round)
JOIN times USING (election, arrival_round)
ORDER BY address, metric_name, intervention_type, round, network
