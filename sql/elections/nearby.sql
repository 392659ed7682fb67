-- nearby: what do the sites that a network finds similar say of the effect that comes next?
-- inputs: believed, within, similarities
-- output: shift, the mean less `middle` of similar packets, weighted by score / (vi + tau2_within); shift_variance, its
--   own variance; neighbours, their effective number (sum of scores)^2 / sum of scores^2; tau2 and tau2_within as in
--   within
-- grain: one candidate, election and target; none where no known packet is similar
-- source: the random-effects mean with weights of one's own: DerSimonian & Kacker (2007), Contemp Clin Trials 28:105,
--   eq. 5; effective number: Kish (1965), Survey Sampling, 11.7
-- answer: no
WITH weighted AS (
    SELECT
        candidate, election, target, tau2, tau2_within, score, d, score / (vi + tau2_within) AS weight
    FROM within
    JOIN believed USING (election, target)
    JOIN similarities USING (candidate)
    WHERE similarities.profile = believed.target_profile
        AND similarities.other = believed.profile
        AND (uses_own OR NOT own)
)
SELECT
    candidate, election, target, tau2, tau2_within,
    sum(weight * d) / sum(weight) AS shift,
    sum(score * weight) / (sum(weight) * sum(weight)) AS shift_variance,
    sum(score) * sum(score) / sum(score * score) AS neighbours
FROM weighted
GROUP BY candidate, election, target, tau2, tau2_within
