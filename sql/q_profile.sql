-- q_profile: for which tau2 would the observed Q be that large, or that small? One step of the search for it
-- inputs: deviations
-- repeat: q_profile_start
-- output: the columns of q_profile_start, one step nearer
-- grain: one cohort and bound
-- source: Viechtbauer (2007), Stat Med 26:37: the tau2 with Q(tau2) = target. Newton's method on 1 / Q, which
--   is concave in tau2 (Q = y'P(tau2)y is a sum of b / (l + tau2) with b, l >= 0), so that from 0 on it
--   climbs to the root and never passes it
-- answer: no
WITH weighted AS (
    SELECT cohort_id, k, bound, typical_variance, target, tau2, d, 1 / (vi + tau2) AS w
    FROM q_profile
    JOIN deviations USING (cohort_id)
    WHERE NOT settled
),
sums AS (
    SELECT
        cohort_id, k, bound, typical_variance, target, tau2,
        sum(w) AS w, sum(w * d) / sum(w) AS mean, sum(w * d * d) AS wdd,
        sum(w * w) AS w2, sum(w * w * d) AS w2d, sum(w * w * d * d) AS w2dd
    FROM weighted
    GROUP BY cohort_id, k, bound, typical_variance, target, tau2
),
quadratic_forms AS (
    SELECT
        *,
        wdd - mean * mean * w AS ypy,
        w2dd - 2 * mean * w2d + mean * mean * w2 AS yppy
    FROM sums
),
stepped AS (
    SELECT *, tau2 + coalesce(greatest(0e0, ypy * (ypy - target) / nullif(target * yppy, 0)), 0e0) AS nearer
    FROM quadratic_forms
)
SELECT
    cohort_id, k, bound, typical_variance, target,
    nearer AS tau2,
    nearer - tau2 <= 1e-12 * (nearer + typical_variance) AS settled
FROM stepped
UNION ALL
SELECT cohort_id, k, bound, typical_variance, target, tau2, settled
FROM q_profile
WHERE settled
