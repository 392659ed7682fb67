-- shrunk: what holds at each site, once it has heard of the others?
-- inputs: effects, estimates, t_quantiles
-- cohorts: every_packet
-- output: own, own_ci_* (95 %, normal): what the site saw by itself, ci NULL without a standard error; trust =
--   tau2 / (tau2 + vi), how much of that is believed, 0 without one; shrunk = trust own + (1 - trust) pooled, with se
--   and 95 % ci_* (normal): what holds at this site; pooled; pi_*: the 95 % prediction interval for a site not
--   seen yet, as in pooled; all on metric_name's scale
-- grain: one packet and method: DL, PM or REML; none where fewer than two packets can be pooled
-- source: Morris (1983), JASA 78:47, empirical Bayes; as metafor's blup: se^2 = trust vi + (1 - trust)^2 se(pooled)^2
-- answer: yes
WITH pooled AS (
    SELECT address, metric_name, intervention_type, method, k, estimate AS pooled, se AS pooled_se, tau2
    FROM estimates
    WHERE cohort = '' AND method <> 'FE' AND k > 1
),
trusted AS (
    SELECT
        *,
        coalesce(tau2 / (tau2 + vi), 0e0) AS trust,
        coalesce(tau2 * vi / (tau2 + vi), tau2) AS variance_here
    FROM effects
    JOIN pooled USING (address, metric_name, intervention_type)
),
shrunken AS (
    SELECT
        *,
        trust * yi + (1 - trust) * pooled AS shrunk,
        sqrt(variance_here + (1 - trust) * (1 - trust) * pooled_se * pooled_se) AS se
    FROM trusted
)
SELECT
    address, metric_name, intervention_type, method, node_id, packet_id,
    yi AS own,
    yi - 1.959963984540054e0 * sqrt(vi) AS own_ci_lb,
    yi + 1.959963984540054e0 * sqrt(vi) AS own_ci_ub,
    trust, shrunk, se,
    shrunk - 1.959963984540054e0 * se AS ci_lb,
    shrunk + 1.959963984540054e0 * se AS ci_ub,
    pooled,
    pooled - t975 * sqrt(tau2 + pooled_se * pooled_se) AS pi_lb,
    pooled + t975 * sqrt(tau2 + pooled_se * pooled_se) AS pi_ub
FROM shrunken
JOIN t_quantiles ON df = k - 1
ORDER BY address, metric_name, intervention_type, method, node_id, packet_id
