-- heterogeneity: how much more do the effects differ than their standard errors explain?
-- inputs: deviations, fixed_effect
-- output: k; q, Cochran's Q; i2 = 100 (Q - (k-1)) / Q, percent, from Q (the same for every method, as in
--   Higgins & Thompson), NULL for k = 1; s2, their typical sampling variance (k-1) / trace P, NULL for k = 1;
--   typical_variance, the harmonic mean of vi; tau2_dl and tau2_he, the two closed-form tau2, never below 0
-- grain: one cohort
-- source: q: Cochran (1954), Biometrics 10:101; i2: Higgins & Thompson (2002), Stat Med 21:1539; tau2_dl:
--   DerSimonian & Laird (1986), Control Clin Trials 7:177; tau2_he: Hedges (1983), Psychol Bull 93:388
-- answer: no
WITH weighted AS (
    SELECT
        cohort_id, d, vi, 1 / vi AS w, largest_weight,
        CASE WHEN 1 / vi < largest_weight THEN 1 / vi END AS w_below
    FROM deviations
    JOIN fixed_effect USING (cohort_id)
),
sums AS (
    SELECT
        cohort_id, largest_weight,
        count(*) AS k,
        count(*) - count(w_below) - 1 AS equally_large,
        sum(w) AS w,
        coalesce(sum(w_below), 0e0) AS w_below,
        coalesce(sum(w_below * w_below), 0e0) AS w2_below,
        sum(w * d * d) AS q,
        var_samp(d) AS variance_between,
        avg(vi) AS variance_within
    FROM weighted
    GROUP BY cohort_id, largest_weight
),
-- trace P = sum w - sum w^2 / sum w, with one largest weight taken out of both sums first. Written plainly, a
-- claim of near certainty cancels every digit of it, DL finds no heterogeneity, and believes the claim.
others AS (
    SELECT
        *,
        w_below + equally_large * largest_weight AS w_others,
        w2_below + equally_large * largest_weight * largest_weight AS w2_others
    FROM sums
),
traces AS (
    SELECT *, 2 * (largest_weight / w) * w_others + (w_others * w_others - w2_others) / w AS trace_p
    FROM others
)
SELECT
    cohort_id, k, q,
    CASE WHEN k > 1 THEN coalesce(100 * greatest(0e0, (q - (k - 1)) / nullif(q, 0)), 0e0) END AS i2,
    (k - 1) / nullif(trace_p, 0) AS s2,
    k / w AS typical_variance,
    coalesce(greatest(0e0, (q - (k - 1)) / nullif(trace_p, 0)), 0e0) AS tau2_dl,
    CASE WHEN k > 1 THEN greatest(0e0, variance_between - variance_within) ELSE 0e0 END AS tau2_he
FROM traces
