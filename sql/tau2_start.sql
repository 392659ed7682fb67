-- tau2_start: tau2 where it has a closed form, and where the search for it begins where it has none
-- inputs: heterogeneity
-- output: tau2, the between-site variance in squared units of the effect; at_least and at_most, what the
--   search knows of it (NULL: nothing yet); settled, whether tau2 is final
-- grain: one cohort and method
-- source: FE: tau2 = 0 by definition; DL: see heterogeneity; PM and REML start from Hedges' estimate, as
--   metafor does
-- answer: no
SELECT
    cohort_id, method, k, typical_variance,
    CASE method WHEN 'FE' THEN 0e0 WHEN 'DL' THEN tau2_dl ELSE tau2_he END AS tau2,
    CAST(NULL AS DOUBLE) AS at_least,
    CAST(NULL AS DOUBLE) AS at_most,
    method IN ('FE', 'DL') OR k = 1 AS settled
FROM heterogeneity
CROSS JOIN (VALUES ('FE'), ('DL'), ('PM'), ('REML')) AS methods (method)
