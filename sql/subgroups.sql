-- subgroups: what is the answer among sites of one kind, and do the kinds differ?
-- inputs: same_context, estimates, t_quantiles, chi2_crit
-- cohorts: same_context
-- output: variable, value: a word of the packets' context that all of the subgroup share; k, estimate, se, 95 %
--   ci_*, tau2 (of its own), i2, hk_ci_* (as in pooled) of the subgroup; groups, how many subgroups the
--   variable has; q_between, how far these lie apart, and differ, whether that is beyond the 95 % point of
--   chi2 with groups - 1 degrees of freedom (NULL for one group)
-- grain: one (address, metric_name, intervention_type), variable, value and method
-- source: Borenstein et al. (2009), Introduction to Meta-Analysis, ch. 19: separate tau2, Q between from the
--   subgroups' estimates with weights 1 / se^2
-- answer: yes
WITH labels AS (
    SELECT DISTINCT address, metric_name, intervention_type, cohort, variable, value
    FROM same_context
),
pooled AS (
    SELECT
        address, metric_name, intervention_type, variable, value, method, k,
        estimate, se, ci_lb, ci_ub, tau2, i2, excess
    FROM estimates
    JOIN labels USING (address, metric_name, intervention_type, cohort)
),
means AS (
    SELECT
        address, metric_name, intervention_type, variable, method, count(*) AS groups,
        sum(estimate / (se * se)) / sum(1 / (se * se)) AS mean
    FROM pooled
    GROUP BY address, metric_name, intervention_type, variable, method
),
between_groups AS (
    SELECT
        address, metric_name, intervention_type, variable, method, groups,
        sum((estimate - mean) * (estimate - mean) / (se * se)) AS q_between
    FROM pooled
    JOIN means USING (address, metric_name, intervention_type, variable, method)
    GROUP BY address, metric_name, intervention_type, variable, method, groups
)
SELECT
    address, metric_name, intervention_type, variable, value, method, k, estimate, se, ci_lb, ci_ub, tau2, i2,
    estimate - t975 * se * sqrt(greatest(1e0, excess)) AS hk_ci_lb,
    estimate + t975 * se * sqrt(greatest(1e0, excess)) AS hk_ci_ub,
    groups,
    CASE WHEN groups > 1 THEN q_between END AS q_between,
    q_between > chi2_950 AS differ
FROM pooled
JOIN between_groups USING (address, metric_name, intervention_type, variable, method)
LEFT JOIN t_quantiles ON t_quantiles.df = k - 1
LEFT JOIN chi2_crit ON chi2_crit.df = groups - 1
ORDER BY address, metric_name, intervention_type, variable, value, method
