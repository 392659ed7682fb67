-- meta_regression: does the effect change with a number that the sites told of themselves?
-- inputs: moderators, moderated_tau2, estimates, t_crit
-- cohorts: every_packet
-- output: variable; k, the packets that tell it; slope, the change of the effect for one unit of it, with se, 95 %
--   ci_* (normal) and z; slope_hk_*, Knapp-Hartung with its factor max(1, sum of w (yi - line)^2 / (k-2)) and t(k-2), so
--   never narrower than ci_*; intercept, the effect where it is 0, with se and hk_se; tau2, the variance between sites
--   that is left; tau2_without, REML's over all packets, and r2, the percentage of it that the variable explains, never
--   below 0: both NULL where some packet does not tell the variable or nothing was there to explain
-- grain: one (address, metric_name, intervention_type) and variable of the context that holds numbers
-- source: Thompson & Higgins (2002), Stat Med 21:1559, mixed effects by REML; hk: Knapp & Hartung (2003), Stat Med
--   22:2693, with the factor as in pooled, and t beyond 2,000 degrees of freedom from t(2000) and the normal's point by the
--   first term in 1 / df, within 2e-7; r2: Raudenbush (2009), Handbook of Research Synthesis, ch. 16
-- answer: yes
WITH weighted AS (
    SELECT *, 1 / (vi + tau2) AS w
    FROM moderators
    JOIN (SELECT model_id, tau2 FROM moderated_tau2 WHERE settled) AS variances USING (model_id)
),
means AS (
    SELECT model_id, sum(w) AS w_sum, sum(w * x) / sum(w) AS mean_x, sum(w * yi) / sum(w) AS mean_y
    FROM weighted
    GROUP BY model_id
),
lines AS (
    SELECT
        model_id, address, metric_name, intervention_type, variable, k, centre, spread, tau2, w_sum, mean_x, mean_y,
        sum(w * (x - mean_x) * (x - mean_x)) AS wxx,
        sum(w * (x - mean_x) * (yi - mean_y)) / sum(w * (x - mean_x) * (x - mean_x)) AS rise
    FROM weighted
    JOIN means USING (model_id)
    GROUP BY
        model_id, address, metric_name, intervention_type, variable, k, centre, spread, tau2, w_sum, mean_x, mean_y
),
residuals AS (
    SELECT
        model_id,
        sum(w * (yi - mean_y - rise * (x - mean_x)) * (yi - mean_y - rise * (x - mean_x))) AS unexplained
    FROM weighted
    JOIN (SELECT model_id, mean_x, mean_y, rise FROM lines) AS fits USING (model_id)
    GROUP BY model_id
),
-- Back from the standardised x to the variable's own unit.
unscaled AS (
    SELECT
        *,
        rise / spread AS slope,
        1 / sqrt(wxx) / spread AS slope_se,
        mean_y - rise * (mean_x + centre / spread) AS intercept,
        sqrt(1 / w_sum + (mean_x + centre / spread) * (mean_x + centre / spread) / wxx) AS intercept_se,
        sqrt(greatest(1e0, unexplained / (k - 2))) AS wider,
        CASE
            WHEN k > 2002 THEN 1.959963984540054e0 + (t975 - 1.959963984540054e0) * 2000e0 / (k - 2)
            ELSE t975
        END AS t
    FROM lines
    JOIN residuals USING (model_id)
    JOIN t_crit ON df = least(k - 2, 2000)
),
plain AS (
    SELECT address, metric_name, intervention_type, k, tau2 AS tau2_without
    FROM estimates
    WHERE cohort = '' AND method = 'REML'
)
SELECT
    address, metric_name, intervention_type, variable, k,
    slope, slope_se,
    slope - 1.959963984540054e0 * slope_se AS slope_ci_lb,
    slope + 1.959963984540054e0 * slope_se AS slope_ci_ub,
    slope / slope_se AS z,
    slope_se * wider AS slope_hk_se,
    slope - t * slope_se * wider AS slope_hk_ci_lb,
    slope + t * slope_se * wider AS slope_hk_ci_ub,
    intercept, intercept_se, intercept_se * wider AS intercept_hk_se, tau2, tau2_without,
    100 * greatest(0e0, (tau2_without - tau2) / nullif(tau2_without, 0)) AS r2
FROM unscaled
LEFT JOIN plain USING (address, metric_name, intervention_type, k)
ORDER BY address, metric_name, intervention_type, variable
