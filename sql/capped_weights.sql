-- capped_weights: how much may each packet weigh if no single claim of certainty is believed on its own?
-- inputs: effects
-- output: yi; weight = 1 / se^2, where se is at least half of what the key's packets commonly show for as
--   many records: floor = median(se sqrt(ni)) / 2 / sqrt(ni), in the metric's own unit, so no constant is
--   tied to a metric; then at most twice the key's median weight, which also holds a packet that claims a
--   huge ni. No ni: no floor, the cap alone.
-- grain: one packet with a variance
-- source: this project; both bounds are there against a packet that claims too much. se sqrt(ni) is the
--   standard deviation of one record (Borenstein et al. 2009, Introduction to Meta-Analysis, ch. 4)
-- answer: no
WITH typical AS (
    SELECT
        address, metric_name, intervention_type,
        median(CASE WHEN ni > 0 THEN sqrt(vi * ni) END) AS record_sd
    FROM effects
    WHERE vi IS NOT NULL
    GROUP BY address, metric_name, intervention_type
),
floored AS (
    SELECT
        address, metric_name, intervention_type, packet_id, yi,
        1 / greatest(vi, coalesce(record_sd * record_sd / 4 / nullif(greatest(ni, 0), 0), 0e0)) AS weight
    FROM effects
    JOIN typical USING (address, metric_name, intervention_type)
    WHERE vi IS NOT NULL
),
caps AS (
    SELECT address, metric_name, intervention_type, 2 * median(weight) AS cap
    FROM floored
    GROUP BY address, metric_name, intervention_type
)
SELECT address, metric_name, intervention_type, packet_id, yi, least(weight, cap) AS weight
FROM floored
JOIN caps USING (address, metric_name, intervention_type)
