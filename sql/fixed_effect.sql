-- fixed_effect: what is the inverse-variance weighted mean of each cohort?
-- inputs: cohorts
-- output: cohort_id, a number for the key; k, the effects in it; mean, the fixed-effect
--   estimate; largest_weight, that of its most certain effect
-- grain: one (address, metric_name, intervention_type, cohort)
-- source: Hedges & Olkin (1985), ch. 6, eq. 6.4
-- answer: no
SELECT
    row_number() OVER (ORDER BY address, metric_name, intervention_type, cohort) AS cohort_id,
    address, metric_name, intervention_type, cohort,
    count(*) AS k,
    sum(yi / vi) / sum(1 / vi) AS mean,
    max(1 / vi) AS largest_weight
FROM cohorts
GROUP BY address, metric_name, intervention_type, cohort
