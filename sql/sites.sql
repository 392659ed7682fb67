-- sites: what did each site see, by itself?
-- inputs: effects
-- output: records, the records behind the effect; estimate, se, ci_lb, ci_ub (95 %, normal), on metric_name's
--   scale; se and ci_* are NULL where the packet carries no standard error
-- grain: one distinct packet at one address
-- source: Hedges & Olkin (1985), Statistical Methods for Meta-Analysis, ch. 5
-- answer: yes
SELECT
    address, metric_name, intervention_type, node_id, packet_id,
    ni AS records,
    yi AS estimate,
    sqrt(vi) AS se,
    yi - 1.959963984540054e0 * sqrt(vi) AS ci_lb,
    yi + 1.959963984540054e0 * sqrt(vi) AS ci_ub
FROM effects
ORDER BY address, metric_name, intervention_type, node_id, packet_id
