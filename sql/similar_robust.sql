-- similar_robust: what do the sites that are like each one say, if some of them lie?
-- inputs: effects, capped_weights, packet_contexts, similar_contexts
-- output: definition; k, the packets of similar contexts, its own among them; effective_sites, to how many equal sites
--   they come down by their scores; median, by scores alone, with one_liar_lb and one_liar_ub: whatever any one of the
--   packets says, the median stays between them, NULL where one packet has half of the weight; weighted_median_capped,
--   by score times capped_weights, NULL where no packet has a standard error; mean, the plain one to compare with, by
--   score times 1 / se^2, and one_liar_moved: how far it moves when the packet that moves it most stays out
-- grain: one (address, metric_name, intervention_type, context), at an address whose domain has a similarity
--   definition; none where no packet is in a similar context
-- source: weighted median: Edgeworth (1888), Phil Mag 25:184; a packet with the share a of the weight moves it within
--   the quantiles 1/2 - a and 1/2 + a; effective number: Kish (1965), Survey Sampling, sec. 11.7; scores:
--   qis_connectors/similarity.py
-- answer: yes
WITH sited AS (
    SELECT
        address, metric_name, intervention_type, context, node_id, packet_id, yi, vi,
        coalesce(weight, 0e0) AS capped
    FROM effects
    JOIN packet_contexts USING (address, metric_name, intervention_type, node_id, packet_id)
    LEFT JOIN (
        SELECT address, metric_name, intervention_type, packet_id, weight FROM capped_weights
    ) AS weights USING (address, metric_name, intervention_type, packet_id)
),
asking AS (
    SELECT DISTINCT address, metric_name, intervention_type, context
    FROM sited
),
near AS (
    SELECT
        address, metric_name, intervention_type, asking.context AS context, definition,
        node_id, packet_id, yi, score, score * capped AS capped, coalesce(score / vi, 0e0) AS plain
    FROM asking
    JOIN similar_contexts USING (address, context)
    JOIN (
        SELECT
            address, metric_name, intervention_type, context AS similar_to, node_id, packet_id, yi, vi, capped
        FROM sited
    ) AS answering USING (address, metric_name, intervention_type, similar_to)
    WHERE score > 0
),
running AS (
    SELECT
        *,
        sum(score) OVER so_far AS score_so_far,
        sum(score) OVER whole AS score_in_all,
        sum(capped) OVER so_far AS capped_so_far,
        sum(capped) OVER whole AS capped_in_all,
        max(score) OVER whole AS largest,
        sum(plain) OVER whole AS plain_in_all,
        sum(plain * yi) OVER whole / nullif(sum(plain) OVER whole, 0) AS mean
    FROM near
    WINDOW
        whole AS (PARTITION BY address, metric_name, intervention_type, context),
        so_far AS (
            PARTITION BY address, metric_name, intervention_type, context ORDER BY yi, packet_id, node_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        )
),
-- The sliver below one half keeps two equal halves equal whatever the order of the sums.
answered AS (
    SELECT
        address, metric_name, intervention_type, context, definition,
        count(*) AS k,
        min(CASE WHEN score_so_far >= (0.5e0 - 1e-12) * score_in_all THEN yi END) AS median,
        min(CASE
            WHEN 2 * largest < score_in_all AND score_so_far >= (0.5e0 - 1e-12) * score_in_all - largest THEN yi
        END) AS one_liar_lb,
        min(CASE
            WHEN 2 * largest < score_in_all AND score_so_far >= (0.5e0 - 1e-12) * score_in_all + largest THEN yi
        END) AS one_liar_ub,
        min(CASE
            WHEN capped_in_all > 0 AND capped_so_far >= (0.5e0 - 1e-12) * capped_in_all THEN yi
        END) AS weighted_median_capped,
        max(mean) AS mean,
        max(CASE
            WHEN plain_in_all - plain > 1e-9 * plain_in_all THEN plain * abs(yi - mean) / (plain_in_all - plain)
        END) AS one_liar_moved
    FROM running
    GROUP BY address, metric_name, intervention_type, context, definition
),
sites AS (
    SELECT
        address, metric_name, intervention_type, context,
        sum(score) * sum(score) / sum(score * score) AS effective_sites
    FROM (
        SELECT address, metric_name, intervention_type, context, node_id, sum(score) AS score
        FROM near
        GROUP BY address, metric_name, intervention_type, context, node_id
    ) AS by_site
    GROUP BY address, metric_name, intervention_type, context
)
SELECT
    address, metric_name, intervention_type, context, definition, k, effective_sites,
    median, one_liar_lb, one_liar_ub, weighted_median_capped, mean, one_liar_moved
FROM answered
JOIN sites USING (address, metric_name, intervention_type, context)
ORDER BY address, metric_name, intervention_type, context
