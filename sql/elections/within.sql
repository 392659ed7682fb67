-- within: by how much do the true effects of sites differ that a network finds similar?
-- inputs: believed, everyone, similarities
-- output: tau2, that of everyone; tau2_within, half the score-weighted mean of (di - dj)^2 - vi - vj over the pairs of
--   known packets, from 0 to tau2
-- grain: one candidate, election and target; none where no two known packets are similar
-- source: Hedges (1983), Psychol Bull 93:388, written over pairs (the variance is half the mean squared difference of
--   two), each with its score for weight: with scores of 1 it is Hedges' estimate
-- answer: no
WITH profiles AS (
    SELECT
        election, target, own, profile, count(*) AS n, sum(d) AS d, sum(d * d) AS dd, sum(vi) AS v
    FROM believed
    GROUP BY election, target, own, profile
),
-- All packets of one profile have one score with those of another, so that sums of each stand for their pairs.
pairs AS (
    SELECT
        candidate, one.election, one.target, score,
        CASE WHEN one.profile = two.profile THEN one.n * (one.n - 1) ELSE one.n * two.n END AS n,
        two.n * one.dd + one.n * two.dd - 2 * one.d * two.d
        - CASE
            WHEN one.profile = two.profile THEN 2 * (one.n - 1) * one.v
            ELSE two.n * one.v + one.n * two.v
        END AS excess
    FROM profiles AS one
    JOIN similarities ON similarities.profile = one.profile
    JOIN profiles AS two
        ON two.election = one.election AND two.target = one.target AND two.profile = similarities.other
    -- Scores are the same both ways, so each pair of sites is looked at once.
    WHERE uses_own OR (similarities.profile < similarities.other AND NOT (one.own OR two.own))
)
SELECT
    candidate, election, target, tau2,
    least(tau2, greatest(0e0, sum(score * excess) / (2 * sum(score * n)))) AS tau2_within
FROM pairs
JOIN everyone USING (election, target)
GROUP BY candidate, election, target, tau2
HAVING sum(score * n) > 0
