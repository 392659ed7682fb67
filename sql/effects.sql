-- effects: what did each site see, and how sure was it?
-- inputs: packets
-- output: yi, the effect (metric_delta) on metric_name's scale; vi, its sampling variance (metric_stderr
--   squared), NULL where the packet carries no usable standard error: it then counts in the unweighted
--   answers only; ni, the records behind it (sample_count)
-- grain: one distinct packet at one address; a packet sent twice is one packet; an effect that is no number
--   is left out
-- source: Hedges & Olkin (1985), Statistical Methods for Meta-Analysis, ch. 5: the pair (effect, sampling
--   variance)
-- answer: no
WITH deposited AS (
    SELECT
        address, metric_name, intervention_type, node_id, packet_id,
        CAST(any_value(metric_delta) AS DOUBLE) AS yi,
        CAST(any_value(metric_stderr) AS DOUBLE) AS standard_error,
        CAST(any_value(sample_count) AS BIGINT) AS ni
    FROM packets
    GROUP BY address, metric_name, intervention_type, node_id, packet_id
)
-- Both engines order NaN above infinity, so "below infinity" is the finiteness test that both have.
SELECT
    address, metric_name, intervention_type, node_id, packet_id, yi,
    CASE
        WHEN standard_error > 0
            AND standard_error * standard_error > 0
            AND standard_error * standard_error < CAST('Infinity' AS DOUBLE)
        THEN standard_error * standard_error
    END AS vi,
    ni
FROM deposited
WHERE abs(yi) < CAST('Infinity' AS DOUBLE)
