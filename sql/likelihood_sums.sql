-- likelihood_sums: how likely are all the sites' rows together, at each effect on the grid?
-- inputs: packets
-- output: grid_from, grid_to: the ends of the grid, `likelihood_from` and `likelihood_to` in the packet's context,
--   -3 and 3 where it names none; points, how many there are, evenly spaced; position, 0 at grid_from; effect,
--   on metric_name's scale; k, the packets in the sum; log_likelihood, the sum of theirs; gradient, the sum of its
--   derivatives by the effect over the packets that tell them (`likelihood_gradients` in the context: as many again,
--   behind the log-likelihoods), and without_gradient, the sum of log_likelihood over those that do not
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
told AS (
    SELECT
        *,
        coalesce(get_json_object(context, '$.likelihood_gradients') = 'true', false) AS has_gradients,
        coalesce(try_cast(get_json_object(context, '$.likelihood_from') AS DOUBLE), -3e0) AS grid_from,
        coalesce(try_cast(get_json_object(context, '$.likelihood_to') AS DOUBLE), 3e0) AS grid_to
    FROM latest
),
gridded AS (
    SELECT
        *,
        CASE
            WHEN has_gradients THEN CAST(floor(array_size(likelihood) / 2e0) AS INTEGER)
            ELSE CAST(array_size(likelihood) AS INTEGER)
        END AS points
    FROM told
),
pointed AS (
    SELECT *, explode(sequence(0, points - 1)) AS position
    FROM gridded
    WHERE points > 2 AND grid_from < grid_to
),
valued AS (
    SELECT
        *,
        CAST(get(likelihood, position) AS DOUBLE) AS height,
        CASE WHEN has_gradients THEN CAST(get(likelihood, points + position) AS DOUBLE) ELSE 0e0 END AS derivative
    FROM pointed
)
SELECT
    address, metric_name, intervention_type, grid_from, grid_to, points, position,
    grid_from + (grid_to - grid_from) * position / (points - 1) AS effect,
    count(*) AS k,
    sum(height) AS log_likelihood,
    sum(derivative) AS gradient,
    sum(CASE WHEN has_gradients THEN 0e0 ELSE height END) AS without_gradient
FROM valued
GROUP BY address, metric_name, intervention_type, grid_from, grid_to, points, position
