-- robust: what is the answer if some sites lie?
-- inputs: effects, scale, huber, capped_weights, median_of_means
-- output: k, every packet; median, trimmed_10 (mean without the lowest and highest floor(k / 10)),
--   winsorised_10 (mean with those set to the nearest that stays), weighted_median_capped (lower weighted
--   median with capped_weights; NULL where no packet has a standard error), huber, mad, median_of_means; all on
--   metric_name's scale, all but weighted_median_capped one packet one vote
-- grain: one (address, metric_name, intervention_type)
-- source: Wilcox (2012), Introduction to Robust Estimation, ch. 3; weighted median: Edgeworth (1888), Phil
--   Mag 25:184
-- answer: yes
WITH ranked AS (
    SELECT
        address, metric_name, intervention_type, yi,
        row_number() OVER (PARTITION BY address, metric_name, intervention_type ORDER BY yi) AS rank,
        count(*) OVER (PARTITION BY address, metric_name, intervention_type) AS k
    FROM effects
),
tails AS (
    SELECT *, floor(k / 10.0) AS tail
    FROM ranked
),
trimmed AS (
    SELECT
        address, metric_name, intervention_type, tail, k - 2 * tail AS kept,
        sum(CASE WHEN rank > tail AND rank <= k - tail THEN yi END) AS kept_sum,
        max(CASE WHEN rank = tail + 1 THEN yi END) AS lowest_kept,
        max(CASE WHEN rank = k - tail THEN yi END) AS highest_kept
    FROM tails
    GROUP BY address, metric_name, intervention_type, tail, k
),
weighted AS (
    SELECT
        address, metric_name, intervention_type, yi,
        sum(weight) OVER (
            PARTITION BY address, metric_name, intervention_type ORDER BY yi, packet_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS weight_so_far,
        sum(weight) OVER (PARTITION BY address, metric_name, intervention_type) AS weight_in_all
    FROM capped_weights
),
-- The sliver below one half keeps two equal halves equal whatever the order of the sums.
weighted_median AS (
    SELECT address, metric_name, intervention_type, min(yi) AS weighted_median_capped
    FROM weighted
    WHERE weight_so_far >= (0.5e0 - 1e-12) * weight_in_all
    GROUP BY address, metric_name, intervention_type
)
SELECT
    address, metric_name, intervention_type, k, median,
    kept_sum / kept AS trimmed_10,
    (kept_sum + tail * (lowest_kept + highest_kept)) / (kept + 2 * tail) AS winsorised_10,
    weighted_median_capped,
    huber,
    mad,
    median_of_means
FROM scale
JOIN trimmed USING (address, metric_name, intervention_type)
JOIN median_of_means USING (address, metric_name, intervention_type)
LEFT JOIN weighted_median USING (address, metric_name, intervention_type)
LEFT JOIN (
    SELECT address, metric_name, intervention_type, huber FROM huber WHERE settled
) AS m_estimate USING (address, metric_name, intervention_type)
ORDER BY address, metric_name, intervention_type
