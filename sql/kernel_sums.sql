-- kernel_sums: how much does each site count for those in each context, and what did it see?
-- inputs: effects, estimates, packet_contexts, similar_contexts
-- output: definition; w = sum s / (vi + tau2), the site's packets each by the score s of its context with this one and
--   by its precision, tau2 the key's by REML; wy, the same with the effect, w yi; variance = sum s^2 / (vi + tau2),
--   that of wy
-- grain: one (address, metric_name, intervention_type, context) and node_id with a packet in a similar context;
--   contexts are those of the key's packets with a variance
-- source: the weights of Nadaraya (1964) and Watson (1964) for a local mean, times those of random effects; s is
--   qis_connectors/similarity.py's (Gower 1971, Biometrics 27:857)
-- answer: no
WITH weighted AS (
    SELECT
        address, metric_name, intervention_type, context, node_id,
        sum(1 / (vi + tau2)) AS w,
        sum(yi / (vi + tau2)) AS wy
    FROM effects
    JOIN packet_contexts USING (address, metric_name, intervention_type, node_id, packet_id)
    JOIN (
        SELECT address, metric_name, intervention_type, tau2
        FROM estimates
        WHERE cohort = '' AND method = 'REML' AND k > 1
    ) AS spread USING (address, metric_name, intervention_type)
    WHERE vi IS NOT NULL
    GROUP BY address, metric_name, intervention_type, context, node_id
),
asking AS (
    SELECT DISTINCT address, metric_name, intervention_type, context
    FROM weighted
)
SELECT
    address, metric_name, intervention_type, asking.context AS context, definition, node_id,
    sum(score * w) AS w,
    sum(score * wy) AS wy,
    sum(score * score * w) AS variance
FROM asking
JOIN similar_contexts USING (address, context)
JOIN (
    SELECT address, metric_name, intervention_type, context AS similar_to, node_id, w, wy
    FROM weighted
) AS answering USING (address, metric_name, intervention_type, similar_to)
GROUP BY address, metric_name, intervention_type, asking.context, definition, node_id
