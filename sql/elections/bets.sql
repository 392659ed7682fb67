-- bets: what would bets on one network against another have grown to by each round?
-- inputs: normal_scores, arrivals
-- output: growth, the logarithm of what a stake has grown to that in every round bets the share `fraction` of what it
--   may: times 1 + fraction gain / bound, where gain is the round's mean score of `incumbent` less that of
--   `challenger`, and bound the most that it could be, known before the packets' effects are
-- grain: one control, election in time, incumbent, challenger, round and fraction
-- source: betting: Waudby-Smith & Ramdas (2024), JRSS B 86:1, several fractions side by side (their dKelly). bound: the
--   scores of two normal forecasts never differ by more than |mean1 - mean2| + |sd1 - sd2| / sqrt(pi), whatever comes:
--   the difference is greatest at infinity or where the distributions cross. One bet a round: packets of one time may
--   hang together
-- answer: no
WITH pairs AS (
    SELECT
        one.control, one.election, one.round, one.network AS incumbent, two.network AS challenger,
        avg(one.score - two.score) AS gain,
        avg(least(4e0, abs(one.mean - two.mean) + abs(one.sd - two.sd) / 1.7724538509055160e0)) AS bound
    FROM normal_scores AS one
    JOIN (SELECT DISTINCT election, design FROM arrivals) AS designs ON designs.election = one.election
    JOIN normal_scores AS two
        ON two.control = one.control AND two.election = one.election AND two.packet_id = one.packet_id
    WHERE design = 'in_time' AND one.network <> two.network
    GROUP BY one.control, one.election, one.round, one.network, two.network
)
SELECT
    control, election, round, incumbent, challenger, fraction,
    sum(CASE WHEN bound > 1e-12 THEN ln(1 + fraction * greatest(-1e0, least(1e0, gain / bound))) ELSE 0e0 END) OVER (
        PARTITION BY control, election, incumbent, challenger, fraction ORDER BY round
    ) AS growth
FROM pairs
CROSS JOIN (VALUES (0.1e0), (0.3e0), (0.5e0), (0.7e0), (0.9e0)) AS fractions (fraction)
