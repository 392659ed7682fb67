-- influence: how much does each packet move the answer, and is any of them out of line?
-- inputs: effects, estimates
-- cohorts: every_packet, all_but_one
-- output: k, the packets pooled; hat, the packet's share of the weight (0..1); rstudent, its distance from the
--   answer without it, in standard errors of that distance; dffits and dfbetas, how far the answer moves when
--   it stays out, in two kinds of standard errors; cooks_distance, the same squared, in the answer's own;
--   cov_ratio, the answer's variance without it over the one with it; tau2_without, q_without; influential:
--   abs(dffits) > 3 / sqrt(k-1), cooks_distance above the median of chi2 with 1 degree of freedom, hat > 3 / k
--   or abs(dfbetas) > 1
-- grain: one (address, metric_name, intervention_type), method and packet with a variance; none for k = 1
-- source: Viechtbauer & Cheung (2010), Research Synthesis Methods 1:112, as metafor's influence.rma.uni: tau2 is
--   estimated anew without the packet
-- answer: yes
WITH full_set AS (
    SELECT address, metric_name, intervention_type, method, k, estimate, se, coalesce(tau2, 0e0) AS tau2
    FROM estimates
    WHERE cohort = ''
),
reduced_set AS (
    SELECT
        address, metric_name, intervention_type, cohort, method,
        estimate AS estimate_without,
        se AS se_without,
        coalesce(tau2, 0e0) AS tau2_without,
        q AS q_without
    FROM estimates
),
packets_in AS (
    SELECT
        address, metric_name, intervention_type, node_id, packet_id, 'without ' || packet_id AS cohort, yi, vi
    FROM effects
),
measured AS (
    SELECT
        *,
        se * se / (vi + tau2) AS hat,
        estimate - estimate_without AS moved
    FROM packets_in
    JOIN full_set USING (address, metric_name, intervention_type)
    JOIN reduced_set USING (address, metric_name, intervention_type, cohort, method)
),
diagnostics AS (
    SELECT
        address, metric_name, intervention_type, method, node_id, packet_id, k, hat,
        (yi - estimate_without) / sqrt(vi + tau2_without + se_without * se_without) AS rstudent,
        moved / sqrt(hat * (vi + tau2_without)) AS dffits,
        (moved / se) * (moved / se) AS cooks_distance,
        (se_without / se) * (se_without / se) AS cov_ratio,
        moved * sqrt(1 / (se_without * se_without) + 1 / (vi + tau2_without)) AS dfbetas,
        tau2_without,
        q_without
    FROM measured
)
SELECT
    *,
    abs(dffits) > 3 / sqrt(k - 1e0) OR cooks_distance > 0.454936423119573e0 OR hat > 3e0 / k OR abs(dfbetas) > 1
        AS influential
FROM diagnostics
ORDER BY address, metric_name, intervention_type, method, node_id, packet_id
