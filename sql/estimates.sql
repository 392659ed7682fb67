-- estimates: what is the pooled effect of each cohort by each method, and how sure is it?
-- inputs: fixed_effect, deviations, heterogeneity, tau2
-- output: estimate, se, ci_lb, ci_ub (95 %, normal), on metric_name's scale; tau2, NULL for one effect by a
--   random-effects method (one effect says nothing of differences); q, i2 (percent); excess = sum of w (yi -
--   estimate)^2 over k - 1, NULL for k = 1
-- grain: one (address, metric_name, intervention_type, cohort) and method; a tau2 that never settled leaves
--   no row
-- source: Hedges & Olkin (1985), ch. 6 and 9: weights w = 1 / (vi + tau2), se = 1 / sqrt(sum w)
-- answer: no
WITH sums AS (
    SELECT cohort_id, method, tau2, sum(w) AS w, sum(w * d) / sum(w) AS shift, sum(w * d * d) AS wdd
    FROM (
        SELECT cohort_id, method, tau2, d, 1 / (vi + tau2) AS w
        FROM tau2
        JOIN deviations USING (cohort_id)
        WHERE settled
    ) AS weighted
    GROUP BY cohort_id, method, tau2
),
pooled AS (
    SELECT *, 1 / sqrt(w) AS se, wdd - shift * shift * w AS residual
    FROM sums
)
SELECT
    address, metric_name, intervention_type, cohort, method, k,
    mean + shift AS estimate,
    se,
    mean + shift - 1.959963984540054e0 * se AS ci_lb,
    mean + shift + 1.959963984540054e0 * se AS ci_ub,
    CASE WHEN k > 1 OR method = 'FE' THEN tau2 END AS tau2,
    q,
    i2,
    residual / nullif(k - 1, 0) AS excess
FROM pooled
JOIN fixed_effect USING (cohort_id)
JOIN (SELECT cohort_id, q, i2 FROM heterogeneity) AS spread USING (cohort_id)
