-- likelihood_curve: how likely are all the sites' rows together, between the points of the grid?
-- inputs: likelihood_sums
-- output: points of the packets' grid, k; step, from 0 at grid_from to last_step at grid_to; effect; h, the effect from
--   one step to the next, a 32nd of the grid's; log_likelihood there, all on metric_name's scale
-- grain: one (address, metric_name, intervention_type), grid and step
-- source: Fritsch & Carlson (1980), SIAM J Numer Anal 17:238, eq. 2: the cubic through each two points with the
--   derivatives there (Hermite's). Derivatives that packets do not tell are those of the polynomial through the nearest
--   seven points, by Berrut & Trefethen (2004), SIAM Review 46:501, eq. 9.4, with the weights of even spacing, 5.1
-- answer: no
WITH degrees AS (
    SELECT
        address, metric_name, intervention_type, grid_from, grid_to, points, position, k, effect, log_likelihood, gradient,
        without_gradient,
        (grid_to - grid_from) / (points - 1) AS spacing,
        least(points - 1, 6) AS degree
    FROM likelihood_sums
),
windows AS (
    SELECT *, least(greatest(position - CAST(floor(degree / 2e0) AS INTEGER), 0), points - 1 - degree) AS first
    FROM degrees
),
weighted AS (
    SELECT
        here.*,
        there.without_gradient - here.without_gradient AS rise,
        here.position - there.position AS back,
        CASE WHEN (there.position - here.position) % 2 = 0 THEN 1e0 ELSE -1e0 END
            * factorial(CAST(here.position - first AS INTEGER))
            * factorial(CAST(first + degree - here.position AS INTEGER))
            / factorial(CAST(there.position - first AS INTEGER))
            / factorial(CAST(first + degree - there.position AS INTEGER)) AS weight
    FROM windows AS here
    JOIN likelihood_sums AS there USING (address, metric_name, intervention_type, grid_from, grid_to, points)
    WHERE there.position BETWEEN first AND first + degree AND there.position <> here.position
),
-- slope: the derivative by one spacing of the grid.
slopes AS (
    SELECT
        address, metric_name, intervention_type, grid_from, grid_to, points, spacing, position, k, effect, log_likelihood,
        gradient * spacing + sum(weight * rise / back) AS slope
    FROM weighted
    GROUP BY
        address, metric_name, intervention_type, grid_from, grid_to, points, spacing, position, k, effect, log_likelihood,
        gradient
),
pieces AS (
    SELECT
        *,
        lead(log_likelihood) OVER (
            PARTITION BY address, metric_name, intervention_type, grid_from, grid_to, points ORDER BY position
        ) - log_likelihood AS rise,
        lead(slope) OVER (
            PARTITION BY address, metric_name, intervention_type, grid_from, grid_to, points ORDER BY position
        ) AS next_slope
    FROM slopes
),
steps AS (
    SELECT *, explode(sequence(0, 32)) AS part
    FROM pieces
    WHERE next_slope IS NOT NULL
),
parts AS (
    SELECT *, part / 32e0 AS u
    FROM steps
    WHERE part < 32 OR position = points - 2
)
SELECT
    address, metric_name, intervention_type, grid_from, grid_to, points, k,
    32 * position + part AS step,
    32 * (points - 1) AS last_step,
    spacing / 32 AS h,
    effect + spacing * u AS effect,
    log_likelihood
        + u * (slope + u * (3 * rise - 2 * slope - next_slope + u * (slope + next_slope - 2 * rise))) AS log_likelihood
FROM parts
