-- everyone: what do all other sites together say of the effect that comes next?
-- inputs: believed
-- output: shift, the random-effects mean less `middle`; shift_variance, its own variance; tau2, the variance of the
--   sites' true effects; all on metric_name's scale
-- grain: one election and target
-- source: mean: Hedges & Olkin (1985), ch. 9; tau2: Hedges (1983), Psychol Bull 93:388, which gives every packet the
--   same say
-- answer: no
WITH spread AS (
    SELECT
        election, target, target_profile, middle, greatest(0e0, coalesce(var_samp(d) - avg(vi), 0e0)) AS tau2
    FROM believed
    WHERE NOT own
    GROUP BY election, target, target_profile, middle
)
SELECT
    election, target, spread.target_profile, spread.middle, tau2,
    sum(d / (vi + tau2)) / sum(1 / (vi + tau2)) AS shift,
    1 / sum(1 / (vi + tau2)) AS shift_variance
FROM believed
JOIN spread USING (election, target)
WHERE NOT own
GROUP BY election, target, spread.target_profile, spread.middle, tau2
