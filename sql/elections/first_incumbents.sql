-- first_incumbents: who has the say before any evidence?
-- inputs: normal_scores, arrivals
-- output: number of the term, from 0; incumbent, whose forecasts count; since, the round it came in; evidence, what
--   the bets on it had grown to then, and needed, what they had to grow to: one for each other network by 5 %;
--   settled: whether it is known when the term ended, if it did
-- grain: one control and election in time: everyone begins
-- source: needed: Ville's inequality with Bonferroni's: a bet that is fair or worse grows to 1 / alpha with a chance of
--   at most alpha, however often one looks
-- answer: no
SELECT
    control, election,
    0 AS number,
    'everyone' AS incumbent,
    CAST(0 AS BIGINT) AS since,
    CAST(NULL AS DOUBLE) AS evidence,
    (count(DISTINCT network) - 1) / 0.05e0 AS needed,
    false AS settled
FROM normal_scores
JOIN (SELECT DISTINCT election, design FROM arrivals) AS designs USING (election)
WHERE design = 'in_time'
GROUP BY control, election
