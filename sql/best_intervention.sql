-- best_intervention: which intervention works best, and how sure is it that no other does?
-- inputs: estimates, t_quantiles
-- cohorts: every_packet
-- output: better, the direction that is read as better, `higher` or `lower`: a packet does not say, so both are
--   answered; intervention_type, the one that is surely best by most: of those that several packets speak for (of
--   all, where none is), the one whose 95 % interval ends farthest in that direction on its near side; k, estimate,
--   se, 95 % ci_*: Hartung-Knapp's as in pooled, the normal one for k = 1; candidates, how many there are;
--   runner_up, the next by the same rule; difference = estimate - that of runner_up, its se and 95 % ci_* (normal);
--   separated, whether that interval leaves out 0; NULL without a runner-up
-- grain: one (address, metric_name) and better
-- source: REML; near ends in place of estimates, since the largest of many estimates is mostly the least certain
--   (Efron 2011, JASA 106:1602, the winner's curse); difference of independent estimates: Bucher et al. (1997), J Clin
--   Epidemiol 50:683
-- answer: yes
WITH intervals AS (
    SELECT
        address, metric_name, intervention_type, k, estimate, se,
        CASE WHEN k > 1 THEN estimate - t975 * se * sqrt(greatest(1e0, excess)) ELSE ci_lb END AS ci_lb,
        CASE WHEN k > 1 THEN estimate + t975 * se * sqrt(greatest(1e0, excess)) ELSE ci_ub END AS ci_ub
    FROM estimates
    LEFT JOIN t_quantiles ON df = k - 1
    WHERE cohort = '' AND method = 'REML'
),
directed AS (
    SELECT *, 'higher' AS better, -ci_lb AS near_end
    FROM intervals
    UNION ALL
    SELECT *, 'lower' AS better, ci_ub AS near_end
    FROM intervals
),
ranked AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY address, metric_name, better
            ORDER BY CASE WHEN k > 1 THEN 0 ELSE 1 END, near_end, intervention_type
        ) AS place,
        count(*) OVER (PARTITION BY address, metric_name, better) AS candidates
    FROM directed
),
runners_up AS (
    SELECT
        address, metric_name, better,
        intervention_type AS runner_up, estimate AS next_estimate, se AS next_se
    FROM ranked
    WHERE place = 2
),
compared AS (
    SELECT *, estimate - next_estimate AS difference, sqrt(se * se + next_se * next_se) AS difference_se
    FROM ranked
    LEFT JOIN runners_up USING (address, metric_name, better)
    WHERE place = 1
)
SELECT
    address, metric_name, better, intervention_type, k, estimate, se, ci_lb, ci_ub, candidates,
    runner_up, difference, difference_se,
    difference - 1.959963984540054e0 * difference_se AS difference_ci_lb,
    difference + 1.959963984540054e0 * difference_se AS difference_ci_ub,
    abs(difference) > 1.959963984540054e0 * difference_se AS separated
FROM compared
ORDER BY address, metric_name, better
