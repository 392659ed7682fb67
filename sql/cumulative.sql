-- cumulative: how did the answer grow as the packets came?
-- inputs: effects, estimates, t_quantiles
-- cohorts: all_so_far
-- output: timestamp_utc (Unix epoch, ms) of the packet that came, node_id, packet_id; k, the effects known then;
--   estimate, se, 95 % ci_*, tau2, i2 and hk_ci_* (as in pooled) of all that was known then
-- grain: one (address, metric_name, intervention_type), method and packet with a variance, in the order of time
-- source: Lau et al. (1992), NEJM 327:248
-- answer: yes
SELECT
    address, metric_name, intervention_type, method, timestamp_utc, node_id, packet_id, k,
    estimate, se, ci_lb, ci_ub, tau2, i2,
    estimate - t975 * se * sqrt(greatest(1e0, excess)) AS hk_ci_lb,
    estimate + t975 * se * sqrt(greatest(1e0, excess)) AS hk_ci_ub
FROM estimates
JOIN (
    SELECT
        address, metric_name, intervention_type, 'until ' || packet_id AS cohort, node_id, packet_id, timestamp_utc
    FROM effects
) AS arrivals USING (address, metric_name, intervention_type, cohort)
LEFT JOIN t_quantiles ON df = k - 1
ORDER BY address, metric_name, intervention_type, method, timestamp_utc, packet_id
