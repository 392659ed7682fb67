-- comparisons: how many pairs of sites can be compared for the traffic of so few packets?
-- inputs: effects
-- output: sites, the nodes N with at least one packet; packets; records behind them, NULL where some packet does not
--   say; comparisons = N (N-1) / 2, the pairs of sites: pairs, not information, which grows with N
-- grain: one (address, metric_name, intervention_type)
-- source: pairs of N things; see also sql/pooled.sql for what they are worth together
-- answer: yes
WITH counted AS (
    SELECT
        address, metric_name, intervention_type,
        count(DISTINCT node_id) AS sites,
        count(*) AS packets,
        CAST(CASE WHEN count(ni) = count(*) THEN sum(ni) END AS BIGINT) AS records
    FROM effects
    GROUP BY address, metric_name, intervention_type
)
SELECT
    address, metric_name, intervention_type, sites, packets, records,
    CAST(sites * (sites - 1) / 2 AS BIGINT) AS comparisons
FROM counted
ORDER BY address, metric_name, intervention_type
