-- cells: who had the event, in which arm, at the sites that say so?
-- inputs: packets
-- output: a, b: treated with and without the event; c, d: the same of the controls; n1 = a + b, n2 = c + d, n. All
--   from `cells` in the packet's context: {"cells": [a, b, c, d]}
-- grain: one packet with four cells, none below 0, and people in both arms. A site sends cells only if it
--   decides to: they are its table
-- source: none; the packet's own JSON
-- answer: no
WITH latest AS (
    SELECT
        address, metric_name, intervention_type, node_id, packet_id, max_by(context, timestamp_utc) AS context
    FROM packets
    WHERE context IS NOT NULL
    GROUP BY address, metric_name, intervention_type, node_id, packet_id
),
counted AS (
    SELECT
        address, metric_name, intervention_type, node_id, packet_id,
        try_cast(get_json_object(context, '$.cells[0]') AS DOUBLE) AS a,
        try_cast(get_json_object(context, '$.cells[1]') AS DOUBLE) AS b,
        try_cast(get_json_object(context, '$.cells[2]') AS DOUBLE) AS c,
        try_cast(get_json_object(context, '$.cells[3]') AS DOUBLE) AS d
    FROM latest
)
SELECT *, a + b AS n1, c + d AS n2, a + b + c + d AS n
FROM counted
WHERE
    a >= 0 AND b >= 0 AND c >= 0 AND d >= 0 AND a + b > 0 AND c + d > 0
    AND a + b + c + d < CAST('Infinity' AS DOUBLE)
