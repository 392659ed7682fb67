-- moderated_tau2: by how much do the sites differ beyond what a number of their context explains? One step of the
--   search for it
-- inputs: moderators
-- repeat: moderated_tau2_start
-- output: the columns of moderated_tau2_start, one step nearer
-- grain: one model
-- source: REML, as in tau2, with the line y = a + b x in place of the mean: y'PPy = trace P, by Newton's method on
--   trace P / y'PPy within the bracket of what is known (Viechtbauer 2005, J Educ Behav Stat 30:261). With x
--   taken from its weighted mean X'WX is diagonal, and P's traces are sums.
-- answer: no
WITH weighted AS (
    SELECT model_id, k, typical_variance, tau2, at_least, at_most, x, yi, 1 / (vi + tau2) AS w
    FROM moderated_tau2
    JOIN moderators USING (model_id, k)
    WHERE NOT settled
),
centred AS (
    SELECT
        model_id, k, typical_variance, tau2, at_least, at_most, w,
        x - sum(w * x) OVER (PARTITION BY model_id) / sum(w) OVER (PARTITION BY model_id) AS dx,
        yi - sum(w * yi) OVER (PARTITION BY model_id) / sum(w) OVER (PARTITION BY model_id) AS dy
    FROM weighted
),
fitted AS (
    SELECT
        *,
        dy - dx * sum(w * dx * dy) OVER (PARTITION BY model_id) / sum(w * dx * dx) OVER (PARTITION BY model_id) AS r
    FROM centred
),
sums AS (
    SELECT
        model_id, k, typical_variance, tau2, at_least, at_most,
        sum(w) AS w, sum(w * w) AS w2, sum(w * w * w) AS w3,
        sum(w * dx * dx) AS wxx, sum(w * w * dx) AS w2x, sum(w * w * dx * dx) AS w2xx, sum(w * w * w * dx * dx) AS w3xx,
        sum(w * w * r) AS w2r, sum(w * w * dx * r) AS w2xr,
        sum(w * w * r * r) AS yppy, sum(w * w * w * r * r) AS w3rr
    FROM fitted
    GROUP BY model_id, k, typical_variance, tau2, at_least, at_most
),
quadratic_forms AS (
    SELECT
        *,
        w3rr - w2r * w2r / w - w2xr * w2xr / wxx AS ypppy,
        w - w2 / w - w2xx / wxx AS trace_p,
        w2 - 2 * (w3 / w + w3xx / wxx)
            + (w2 / w) * (w2 / w) + 2 * w2x * w2x / (w * wxx) + (w2xx / wxx) * (w2xx / wxx) AS trace_pp
    FROM sums
),
brackets AS (
    SELECT
        model_id, k, typical_variance, tau2,
        CASE WHEN yppy > trace_p THEN tau2 ELSE at_least END AS at_least,
        CASE WHEN yppy > trace_p THEN at_most ELSE tau2 END AS at_most,
        greatest(0e0, CASE
            WHEN 2 * trace_p * ypppy > trace_pp * yppy
            THEN tau2 + yppy * (yppy - trace_p) / (2 * trace_p * ypppy - trace_pp * yppy)
            WHEN trace_pp > 0 THEN tau2 + (yppy - trace_p) / trace_pp
            ELSE tau2
        END) AS newton
    FROM quadratic_forms
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
    model_id, k, typical_variance,
    nearer AS tau2,
    at_least, at_most,
    abs(nearer - tau2) <= 1e-10 * (nearer + typical_variance) AS settled
FROM stepped
UNION ALL
SELECT model_id, k, typical_variance, tau2, at_least, at_most, settled
FROM moderated_tau2
WHERE settled
