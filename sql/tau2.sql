-- tau2: by how much do the sites' true effects differ? One step of the search for it
-- inputs: deviations
-- repeat: tau2_start
-- output: the columns of tau2_start, one step nearer
-- grain: one cohort and method
-- source: PM: Paule & Mandel (1982), J Res NBS 87:377, tau2 with Q(tau2) = k - 1, by Newton's method on 1 /
--   Q; REML: Patterson & Thompson (1971), Biometrika 58:545, tau2 with y'PPy = trace P, P the projection that
--   takes the weighted mean out (Viechtbauer 2005, J Educ Behav Stat 30:261), by Newton's method on trace P /
--   y'PPy. Equal variances need one step, and every step stays between the values already known to be too low
--   and too high.
-- answer: no
WITH weighted AS (
    SELECT cohort_id, method, k, typical_variance, tau2, at_least, at_most, d, 1 / (vi + tau2) AS w
    FROM tau2
    JOIN deviations USING (cohort_id)
    WHERE NOT settled
),
sums AS (
    SELECT
        cohort_id, method, k, typical_variance, tau2, at_least, at_most,
        sum(w) AS w, sum(w * d) / sum(w) AS mean, sum(w * d * d) AS wdd,
        sum(w * w) AS w2, sum(w * w * d) AS w2d, sum(w * w * d * d) AS w2dd,
        sum(w * w * w) AS w3, sum(w * w * w * d) AS w3d, sum(w * w * w * d * d) AS w3dd
    FROM weighted
    GROUP BY cohort_id, method, k, typical_variance, tau2, at_least, at_most
),
quadratic_forms AS (
    SELECT
        *,
        wdd - mean * mean * w AS ypy,
        w2dd - 2 * mean * w2d + mean * mean * w2 AS yppy,
        w3dd - 2 * mean * w3d + mean * mean * w3
            - (w2d - mean * w2) * (w2d - mean * w2) / w AS ypppy,
        w - w2 / w AS trace_p,
        w2 - 2 * w3 / w + (w2 / w) * (w2 / w) AS trace_pp
    FROM sums
),
-- The equation reads "observed = expected"; observed falls as tau2 grows. derivative is that of
-- expected / observed, times observed squared.
equations AS (
    SELECT
        *,
        CASE method WHEN 'PM' THEN ypy ELSE yppy END AS observed,
        CASE method WHEN 'PM' THEN k - 1 ELSE trace_p END AS expected,
        CASE method WHEN 'PM' THEN (k - 1) * yppy ELSE 2 * trace_p * ypppy - trace_pp * yppy END AS derivative
    FROM quadratic_forms
),
brackets AS (
    SELECT
        cohort_id, method, k, typical_variance, tau2,
        CASE WHEN observed > expected THEN tau2 ELSE at_least END AS at_least,
        CASE WHEN observed > expected THEN at_most ELSE tau2 END AS at_most,
        greatest(0e0, CASE
            WHEN derivative > 0 THEN tau2 + observed * (observed - expected) / derivative
            WHEN trace_pp > 0 THEN tau2 + (yppy - trace_p) / trace_pp
            ELSE tau2
        END) AS newton
    FROM equations
),
stepped AS (
    SELECT
        *,
        CASE
            WHEN (newton <= at_least AND at_least < tau2) OR (newton >= at_most AND at_most > tau2)
            THEN (at_least + at_most) / 2
            ELSE newton
        END AS nearer
    FROM brackets
)
SELECT
    cohort_id, method, k, typical_variance,
    nearer AS tau2,
    at_least, at_most,
    abs(nearer - tau2) <= 1e-10 * (nearer + typical_variance) AS settled
FROM stepped
UNION ALL
SELECT cohort_id, method, k, typical_variance, tau2, at_least, at_most, settled
FROM tau2
WHERE settled
