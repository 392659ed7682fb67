-- local_means: what do the other sites say to each packet: all of them, and those that are similar?
-- inputs: effects, estimates, packet_contexts, kernel_sums
-- output: definition; yi, vi; w = 1 / (vi + tau2), tau2 the key's by REML; pooled, the mean of all other sites by w, with
--   pooled_variance; alike, that of those similar, by w times the score, with alike_variance, NULL where there is
--   none; effective_sites = (sum w)^2 / sum w^2 over those sites, 0 for none
-- grain: one packet with a variance and a context, at an address whose domain has a similarity definition; none where
--   there is no other site
-- source: Kish (1965), Survey Sampling, sec. 11.7, for the effective number; a site's own packets are left out of both
--   means, so that what the packet itself says is independent of them
-- answer: no
WITH weighted AS (
    SELECT
        address, metric_name, intervention_type, node_id, packet_id, yi, vi, tau2,
        1 / (vi + tau2) AS w
    FROM effects
    JOIN (
        SELECT address, metric_name, intervention_type, tau2
        FROM estimates
        WHERE cohort = '' AND method = 'REML' AND k > 1
    ) AS spread USING (address, metric_name, intervention_type)
    WHERE vi IS NOT NULL
),
others AS (
    SELECT
        *,
        sum(w) OVER (PARTITION BY address, metric_name, intervention_type)
            - sum(w) OVER (PARTITION BY address, metric_name, intervention_type, node_id) AS w_others,
        sum(w * yi) OVER (PARTITION BY address, metric_name, intervention_type)
            - sum(w * yi) OVER (PARTITION BY address, metric_name, intervention_type, node_id) AS wy_others,
        sum(w) OVER (PARTITION BY address, metric_name, intervention_type) AS w_all
    FROM weighted
),
sums AS (
    SELECT
        address, metric_name, intervention_type, context, definition, node_id,
        sum(w) OVER (PARTITION BY address, metric_name, intervention_type, context) AS all_w,
        sum(w) OVER (PARTITION BY address, metric_name, intervention_type, context) - w AS sw,
        sum(wy) OVER (PARTITION BY address, metric_name, intervention_type, context) - wy AS swy,
        sum(variance) OVER (PARTITION BY address, metric_name, intervention_type, context) - variance AS sww,
        sum(w * w) OVER (PARTITION BY address, metric_name, intervention_type, context) - w * w AS sw2
    FROM kernel_sums
),
-- What is left when a site takes itself away is nothing but rounding where nobody else is similar.
near AS (
    SELECT *, sw > 1e-9 * all_w AND sw > 0 AS is_met
    FROM sums
)
SELECT
    address, metric_name, intervention_type, node_id, packet_id, definition, yi, vi, w,
    wy_others / w_others AS pooled,
    1 / w_others AS pooled_variance,
    CASE WHEN is_met THEN swy / sw END AS alike,
    CASE WHEN is_met THEN sww / (sw * sw) END AS alike_variance,
    CASE WHEN is_met THEN sw * sw / sw2 ELSE 0e0 END AS effective_sites
FROM others
JOIN packet_contexts USING (address, metric_name, intervention_type, node_id, packet_id)
JOIN near USING (address, metric_name, intervention_type, context, node_id)
WHERE w_others > 1e-9 * w_all
