-- tau2_interval: by how much do the sites differ, and how sure is that?
-- inputs: heterogeneity, fixed_effect, estimates, q_profile
-- cohorts: every_packet
-- output: k; q, Cochran's Q; q_df = k - 1; method and tau2, its estimate of the variance between sites; tau2_lb
--   and tau2_ub, the 95 % Q-profile interval, the same for every method; i2 (percent) and h2 = Q / (k-1), both
--   from Q, never below 0 and 1; i2_*, h2_*: the interval of each, from tau2's
-- grain: one (address, metric_name, intervention_type) with k > 1, and method: DL, PM or REML
-- source: Viechtbauer (2007), Stat Med 26:37; i2, h2: Higgins & Thompson (2002), Stat Med 21:1539; their
--   intervals: with the typical variance s2 of that paper, I2 = tau2 / (tau2 + s2) and H2 = 1 + tau2 / s2
-- answer: yes
WITH profiles AS (
    SELECT
        cohort_id,
        max(CASE WHEN bound = 'lower' THEN tau2 END) AS tau2_lb,
        max(CASE WHEN bound = 'upper' THEN tau2 END) AS tau2_ub
    FROM q_profile
    WHERE settled
    GROUP BY cohort_id
),
differing AS (
    SELECT address, metric_name, intervention_type, k, q, i2, s2, tau2_lb, tau2_ub
    FROM profiles
    JOIN (SELECT cohort_id, k, q, i2, s2 FROM heterogeneity) AS spread USING (cohort_id)
    JOIN (SELECT cohort_id, address, metric_name, intervention_type FROM fixed_effect) AS keys USING (cohort_id)
)
SELECT
    address, metric_name, intervention_type, method, k, q, k - 1 AS q_df,
    tau2, tau2_lb, tau2_ub,
    i2,
    100 * tau2_lb / (tau2_lb + s2) AS i2_lb,
    100 * tau2_ub / (tau2_ub + s2) AS i2_ub,
    greatest(1e0, q / (k - 1)) AS h2,
    1 + tau2_lb / s2 AS h2_lb,
    1 + tau2_ub / s2 AS h2_ub
FROM differing
JOIN (
    SELECT address, metric_name, intervention_type, method, tau2
    FROM estimates
    WHERE cohort = '' AND method <> 'FE'
) AS methods USING (address, metric_name, intervention_type)
ORDER BY address, metric_name, intervention_type, method
