-- arrivals: which packets are there to be foreseen, and what may be known before each comes?
-- inputs: effects, packets, networks
-- output: election, a number for (address, metric_name, intervention_type, design); design, 'in_time': what is
--   earlier is known, or 'left_out': all other packets are, however late, which is done where every site has sent
--   one packet; known_before, Unix epoch in ms; profile, a number for (address, node_id, context); context, yi, vi
--   as in effects; round, the number of the packet's time among those of its election, from 1; target, a number for
--   the row
-- grain: one election and packet with a variance, at an address that has networks
-- source: in_time: Dawid (1984), JRSS A 147:278, the prequential approach; left_out: Stone (1974), JRSS B 36:111
-- answer: no
WITH said AS (
    SELECT
        address, metric_name, intervention_type, node_id, packet_id, max_by(context, timestamp_utc) AS context
    FROM packets
    GROUP BY address, metric_name, intervention_type, node_id, packet_id
),
usable AS (
    SELECT address, metric_name, intervention_type, node_id, packet_id, timestamp_utc, yi, vi, context
    FROM effects
    JOIN said USING (address, metric_name, intervention_type, node_id, packet_id)
    WHERE vi IS NOT NULL AND address IN (SELECT address FROM networks)
),
cross_sections AS (
    SELECT address, metric_name, intervention_type
    FROM usable
    GROUP BY address, metric_name, intervention_type
    HAVING count(*) = count(DISTINCT node_id)
),
designed AS (
    SELECT *, 'in_time' AS design, timestamp_utc AS known_before
    FROM usable
    UNION ALL
    SELECT *, 'left_out' AS design, 9223372036854775807 AS known_before
    FROM usable
    JOIN cross_sections USING (address, metric_name, intervention_type)
),
numbered AS (
    SELECT
        *,
        dense_rank() OVER (ORDER BY address, metric_name, intervention_type, design) AS election,
        dense_rank() OVER (ORDER BY address, node_id, context) AS profile
    FROM designed
)
SELECT
    *,
    dense_rank() OVER (PARTITION BY election ORDER BY timestamp_utc) AS round,
    row_number() OVER (ORDER BY election, packet_id) AS target
FROM numbered
