-- same_context: which effects come from sites of the same kind?
-- inputs: effects, context_values
-- output: cohort, 'VARIABLE=VALUE'; variable, value: the two apart; yi, vi: effect and sampling variance
-- grain: one packet with a variance, for each variable of its context that holds words, not numbers, in some
--   packet of the key
-- source: Borenstein et al. (2009), Introduction to Meta-Analysis, ch. 19
-- answer: no
SELECT
    address, metric_name, intervention_type, variable || '=' || value AS cohort, variable, value, yi, vi
FROM effects
JOIN context_values USING (address, metric_name, intervention_type, node_id, packet_id)
JOIN (
    SELECT DISTINCT address, metric_name, intervention_type, variable
    FROM context_values
    WHERE number IS NULL
) AS categories USING (address, metric_name, intervention_type, variable)
WHERE vi IS NOT NULL
