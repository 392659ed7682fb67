-- moderated_tau2_start: where the search begins for the variance that a number of the context leaves unexplained
-- inputs: moderators
-- output: the columns of tau2_start, for one model in place of one cohort
-- grain: one model
-- source: Hedges (1983), Psychol Bull 93:388: what the effects vary by beyond their sampling variances
-- answer: no
SELECT
    model_id, k,
    k / sum(1 / vi) AS typical_variance,
    greatest(0e0, var_samp(yi) - avg(vi)) AS tau2,
    CAST(NULL AS DOUBLE) AS at_least,
    CAST(NULL AS DOUBLE) AS at_most,
    false AS settled
FROM moderators
GROUP BY model_id, k
