-- q_profile_start: where the search for the ends of tau2's interval begins
-- inputs: heterogeneity, fixed_effect, chi2_quantiles
-- output: bound, lower or upper; target, the value Q(tau2) takes there: the 97.5 % or the 2.5 % point of chi2
--   with k - 1 degrees of freedom; tau2 = 0; settled, whether that is final: it is where Q(0) does not reach
--   the target, so that no tau2 has it
-- grain: one cohort with every packet of its key and k > 1, and bound
-- source: Viechtbauer (2007), Stat Med 26:37
-- answer: no
SELECT cohort_id, k, bound, typical_variance, target, 0e0 AS tau2, q <= target AS settled
FROM (
    SELECT cohort_id, k, 'lower' AS bound, typical_variance, q, chi2_975 AS target
    FROM heterogeneity
    JOIN chi2_quantiles ON df = k - 1
    UNION ALL
    SELECT cohort_id, k, 'upper' AS bound, typical_variance, q, chi2_025 AS target
    FROM heterogeneity
    JOIN chi2_quantiles ON df = k - 1
) AS bounds
JOIN (SELECT cohort_id FROM fixed_effect WHERE cohort = '') AS plain USING (cohort_id)
