-- leave_one_out: does the answer hang on one packet?
-- inputs: effects, estimates
-- cohorts: all_but_one
-- output: left_out, the node whose packet stays out; packet_id, that packet; k, the effects that stay in;
--   estimate, se, tau2, 95 % ci_* without it
-- grain: one (address, metric_name, intervention_type), method and left-out packet; none where there is only
--   one packet
-- source: Viechtbauer & Cheung (2010), Research Synthesis Methods 1:112
-- answer: yes
SELECT
    address, metric_name, intervention_type, method,
    node_id AS left_out, packet_id, k, estimate, se, tau2, ci_lb, ci_ub
FROM estimates
JOIN (
    SELECT address, metric_name, intervention_type, 'without ' || packet_id AS cohort, packet_id, node_id
    FROM effects
) AS stays_out USING (address, metric_name, intervention_type, cohort)
ORDER BY address, metric_name, intervention_type, method, left_out, packet_id
