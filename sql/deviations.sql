-- deviations: how far does each effect lie from its cohort's fixed-effect mean?
-- inputs: cohorts, fixed_effect
-- output: d = yi - mean, vi
-- grain: one effect in one cohort
-- source: Chan, Golub & LeVeque (1983), The American Statistician 37:242: sums of squares lose no digits once
--   centred
-- answer: no
SELECT cohort_id, yi - mean AS d, vi
FROM cohorts
JOIN fixed_effect USING (address, metric_name, intervention_type, cohort)
