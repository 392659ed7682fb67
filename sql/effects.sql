-- effects: what did each site see, and how sure was it?
-- inputs: packets
-- output: yi, the effect (metric_delta) on metric_name's scale; vi, its sampling variance (metric_stderr
--   squared), NULL where the packet carries no usable standard error: it then counts in the unweighted
--   answers only; ni, the records behind it (sample_count); timestamp_utc, Unix epoch in ms
-- grain: one packet_id of one node at one address: the latest valid packet of that id. A packet sent twice is
--   one packet; one whose effect is no number is not valid
-- source: Hedges & Olkin (1985), Statistical Methods for Meta-Analysis, ch. 5: the pair (effect, sampling
--   variance)
-- answer: no
WITH latest AS (
    SELECT
        address, metric_name, intervention_type, node_id, packet_id,
        max_by(CAST(metric_delta AS DOUBLE), timestamp_utc) AS yi,
        max_by(coalesce(CAST(metric_stderr AS DOUBLE), 0e0), timestamp_utc) AS standard_error,
        max_by(coalesce(CAST(sample_count AS BIGINT), 0), timestamp_utc) AS records,
        max(timestamp_utc) AS timestamp_utc
    FROM packets
    -- Both engines order NaN above infinity, so "below infinity" is the finiteness test that both have.
    WHERE abs(CAST(metric_delta AS DOUBLE)) < CAST('Infinity' AS DOUBLE)
    GROUP BY address, metric_name, intervention_type, node_id, packet_id
)
SELECT
    address, metric_name, intervention_type, node_id, packet_id, yi,
    CASE
        WHEN standard_error > 0
            AND standard_error * standard_error > 0
            AND standard_error * standard_error < CAST('Infinity' AS DOUBLE)
        THEN standard_error * standard_error
    END AS vi,
    nullif(records, 0) AS ni,
    timestamp_utc
FROM latest
