-- pooled: what works, by how much, how sure, and how much will the next site differ?
-- inputs: estimates, t_quantiles
-- cohorts: every_packet
-- output: k effects pooled; estimate, se, 95 % ci_*; tau2; q (Cochran's Q); i2 (percent, from Q, the same for
--   every method); hk_*, Hartung-Knapp with its factor max(1, sum w (yi - estimate)^2 / (k-1)) and t(k-1), so
--   never narrower than ci_*; pi_*, the 95 % prediction interval estimate -/+ t(k-1) sqrt(tau2 + se^2). hk_*
--   and pi_* are NULL for k = 1. For FE all of it is the formula at tau2 = 0, there to compare: neither is
--   meant for a model that denies heterogeneity.
-- grain: one (address, metric_name, intervention_type) and method: FE, DL, PM or REML
-- source: hk: Hartung & Knapp (2001), Stat Med 20:3875, with the factor of Rover, Knapp & Friede (2015), BMC
--   Med Res Methodol 15:99; pi: Higgins, Thompson & Spiegelhalter (2009), JRSS A 172:137, with k-1 degrees of
--   freedom as Veroniki et al. (2019), Res Synth Methods 10:23, and since then the default of R's meta: k-2
--   is undefined for two sites and has no better coverage
-- answer: yes
WITH intervals AS (
    SELECT
        *,
        se * sqrt(greatest(1e0, excess)) AS wider_se,
        sqrt(tau2 + se * se) AS next_site_sd
    FROM estimates
    LEFT JOIN t_quantiles ON df = k - 1
    WHERE cohort = ''
)
SELECT
    address, metric_name, intervention_type, method, k, estimate, se, ci_lb, ci_ub, tau2, q, i2,
    CASE WHEN k > 1 THEN wider_se END AS hk_se,
    estimate - t975 * wider_se AS hk_ci_lb,
    estimate + t975 * wider_se AS hk_ci_ub,
    estimate - t975 * next_site_sd AS pi_lb,
    estimate + t975 * next_site_sd AS pi_ub
FROM intervals
ORDER BY address, metric_name, intervention_type, method
