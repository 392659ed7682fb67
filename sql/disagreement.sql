-- disagreement: do the robust answers and the one that weighs by claimed certainty part?
-- inputs: robust, estimates
-- cohorts: every_packet
-- output: twin, a column of robust (all but mad); robust, its value; pooled and pooled_se, by REML; distance =
--   abs(pooled - robust) / pooled_se; own_distance, the same in the standard error of a median of such effects,
--   sqrt(pi / 2) mad / sqrt(k), which one wild packet cannot blow up as it does pooled_se (NULL without spread);
--   disagrees, whether either is above 3: then a few packets may carry the pooled answer
-- grain: one (address, metric_name, intervention_type) with both answers, and twin
-- source: this project; the standard error of a median of normal effects: Kenney & Keeping (1962), Mathematics of
--   Statistics, pt. 1, 13.13
-- answer: yes
WITH twins AS (
    SELECT address, metric_name, intervention_type, k, mad, 'median' AS twin, median AS robust FROM robust
    UNION ALL
    SELECT address, metric_name, intervention_type, k, mad, 'trimmed_10', trimmed_10 FROM robust
    UNION ALL
    SELECT address, metric_name, intervention_type, k, mad, 'winsorised_10', winsorised_10 FROM robust
    UNION ALL
    SELECT address, metric_name, intervention_type, k, mad, 'weighted_median_capped', weighted_median_capped FROM robust
    UNION ALL
    SELECT address, metric_name, intervention_type, k, mad, 'huber', huber FROM robust
    UNION ALL
    SELECT address, metric_name, intervention_type, k, mad, 'median_of_means', median_of_means FROM robust
),
distances AS (
    SELECT
        address, metric_name, intervention_type, twin, robust,
        estimate AS pooled,
        se AS pooled_se,
        abs(estimate - robust) / se AS distance,
        abs(estimate - robust) / nullif(1.2533141373155003e0 * mad / sqrt(k), 0) AS own_distance
    FROM twins
    JOIN (
        SELECT address, metric_name, intervention_type, estimate, se
        FROM estimates
        WHERE cohort = '' AND method = 'REML'
    ) AS random_effects USING (address, metric_name, intervention_type)
    WHERE robust IS NOT NULL
)
SELECT *, distance > 3 OR coalesce(own_distance, 0e0) > 3 AS disagrees
FROM distances
ORDER BY address, metric_name, intervention_type, twin
