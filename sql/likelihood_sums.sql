-- likelihood_sums: how likely are all the sites' rows together, at each effect on the grid?
-- inputs: packets
-- output: grid_from, grid_to: the ends of the grid, `likelihood_from` and `likelihood_to` in the packet's context,
--   -3 and 3 where it names none; points, how many there are, evenly spaced; position, 0 at grid_from; effect,
--   on metric_name's scale; k, the packets in the sum; log_likelihood, the sum of theirs
-- grain: one (address, metric_name, intervention_type), grid and point of it: sums of different grids mean nothing
-- source: Edwards (1972), Likelihood: log-likelihoods of independent data add
-- answer: no
WITH latest AS (
    SELECT
        address, metric_name, intervention_type, node_id, packet_id,
        max_by(likelihood, timestamp_utc) AS likelihood,
        max_by(coalesce(context, '{}'), timestamp_utc) AS context
    FROM packets
    WHERE likelihood IS NOT NULL
    GROUP BY address, metric_name, intervention_type, node_id, packet_id
),
gridded AS (
    SELECT
        address, metric_name, intervention_type, likelihood,
        array_size(likelihood) AS points,
        coalesce(try_cast(get_json_object(context, '$.likelihood_from') AS DOUBLE), -3e0) AS grid_from,
        coalesce(try_cast(get_json_object(context, '$.likelihood_to') AS DOUBLE), 3e0) AS grid_to
    FROM latest
),
pointed AS (
    SELECT *, explode(sequence(0, points - 1)) AS position
    FROM gridded
    WHERE points > 2 AND grid_from < grid_to
)
SELECT
    address, metric_name, intervention_type, grid_from, grid_to, points, position,
    grid_from + (grid_to - grid_from) * position / (points - 1) AS effect,
    count(*) AS k,
    sum(CAST(get(likelihood, position) AS DOUBLE)) AS log_likelihood
FROM pointed
GROUP BY address, metric_name, intervention_type, grid_from, grid_to, points, position
