-- likelihood: which effect makes the rows of all sites most likely, and which are nearly as likely?
-- inputs: likelihood_curve
-- output: k, the packets that carry a likelihood on this grid; grid_from, grid_to, points; estimate, where the sum of
--   their log-likelihoods is highest; se, from its curvature there; ci_lb, ci_ub, the 95 % profile interval: where it
--   is 1.9207 (half of the 95 % point of chi2 with 1 degree of freedom) lower. All on metric_name's scale; NULL
--   where the grid ends before: a site's grid must reach to where its effect cannot be
-- grain: one (address, metric_name, intervention_type) and grid
-- source: Edwards (1972), Likelihood; interval: Wilks (1938), Ann Math Stat 9:60. Between the steps of the curve the
--   parabola through the nearest one and its two neighbours stands for it, which is the sum itself for normal effects;
--   it must be concave
-- answer: yes
WITH neighbours AS (
    SELECT
        *,
        lag(log_likelihood) OVER (
            PARTITION BY address, metric_name, intervention_type, grid_from, grid_to, points ORDER BY step
        ) AS below,
        lead(log_likelihood) OVER (
            PARTITION BY address, metric_name, intervention_type, grid_from, grid_to, points ORDER BY step
        ) AS above
    FROM likelihood_curve
),
-- log_likelihood + slope t + bend t^2, t steps away from its own; each holds half a step to either side, the first and
-- the last to the grid's end.
parabolas AS (
    SELECT
        address, metric_name, intervention_type, grid_from, grid_to, points, k, effect, h, log_likelihood,
        (above - below) / 2 AS slope,
        (above - 2 * log_likelihood + below) / 2 AS bend,
        CASE WHEN step = 1 THEN -1e0 ELSE -0.5e0 END AS t_from,
        CASE WHEN step = last_step - 1 THEN 1e0 ELSE 0.5e0 END AS t_to
    FROM neighbours
    WHERE below IS NOT NULL AND above IS NOT NULL
),
peaks AS (
    SELECT
        *,
        CASE
            WHEN bend < 0 THEN least(t_to, greatest(t_from, -slope / (2 * bend)))
            WHEN slope > 0 THEN t_to
            ELSE t_from
        END AS t_peak
    FROM parabolas
),
summits AS (
    SELECT
        address, metric_name, intervention_type, grid_from, grid_to, points,
        max(log_likelihood + slope * t_peak + bend * t_peak * t_peak) AS summit,
        max_by(effect + h * t_peak, log_likelihood + slope * t_peak + bend * t_peak * t_peak) AS estimate,
        max_by(
            CASE WHEN bend < 0 THEN h / sqrt(-2 * bend) ELSE 0e0 END,
            log_likelihood + slope * t_peak + bend * t_peak * t_peak
        ) AS se
    FROM peaks
    GROUP BY address, metric_name, intervention_type, grid_from, grid_to, points
),
heights AS (
    SELECT
        *,
        log_likelihood - (summit - 1.920729410347062e0) AS height,
        slope * slope - 4 * bend * (log_likelihood - (summit - 1.920729410347062e0)) AS discriminant
    FROM parabolas
    JOIN summits USING (address, metric_name, intervention_type, grid_from, grid_to, points)
),
-- Where each parabola is at least as high as the interval asks.
reaches AS (
    SELECT
        *,
        -- Each root in the form that subtracts no two nearly equal numbers.
        greatest(t_from, CASE
            WHEN slope > 0 THEN -2 * height / (slope + sqrt(discriminant))
            WHEN bend < 0 THEN (-slope + sqrt(discriminant)) / (2 * bend)
            ELSE t_from
        END) AS t_low,
        least(t_to, CASE
            WHEN slope < 0 THEN 2 * height / (-slope + sqrt(discriminant))
            WHEN bend < 0 THEN (-slope - sqrt(discriminant)) / (2 * bend)
            ELSE t_to
        END) AS t_high
    FROM heights
    WHERE discriminant >= 0 AND (bend < 0 OR slope <> 0 OR height >= 0)
),
intervals AS (
    SELECT
        address, metric_name, intervention_type, grid_from, grid_to, points,
        max(k) AS k, max(h) AS h, max(estimate) AS estimate, max(se) AS se,
        min(effect + h * t_low) AS low,
        max(effect + h * t_high) AS high
    FROM reaches
    WHERE t_low <= t_high
    GROUP BY address, metric_name, intervention_type, grid_from, grid_to, points
)
SELECT
    address, metric_name, intervention_type, k, grid_from, grid_to, CAST(points AS BIGINT) AS points,
    CASE WHEN estimate > grid_from + 1e-9 * h AND estimate < grid_to - 1e-9 * h THEN estimate END AS estimate,
    CASE WHEN estimate > grid_from + 1e-9 * h AND estimate < grid_to - 1e-9 * h THEN nullif(se, 0) END AS se,
    CASE WHEN low > grid_from + 1e-9 * h THEN low END AS ci_lb,
    CASE WHEN high < grid_to - 1e-9 * h THEN high END AS ci_ub
FROM intervals
ORDER BY address, metric_name, intervention_type, grid_from, grid_to, points
