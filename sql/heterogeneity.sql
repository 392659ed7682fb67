-- heterogeneity: how much more do the effects differ than their standard errors explain?
-- inputs: deviations
-- output: k; q, Cochran's Q; i2 = 100 (Q - (k-1)) / Q, percent, from Q (the same for every method, as in Higgins & Thompson),
--   NULL for k = 1; typical_variance, the harmonic mean of vi; tau2_dl and tau2_he, the two closed-form tau2, never below 0
-- grain: one cohort
-- source: q: Cochran (1954), Biometrics 10:101; i2: Higgins & Thompson (2002), Stat Med 21:1539; tau2_dl: DerSimonian &
--   Laird (1986), Control Clin Trials 7:177; tau2_he: Hedges (1983), Psychol Bull 93:388
-- answer: no
WITH sums AS (
    SELECT
        cohort_id,
        count(*) AS k,
        sum(1 / vi) AS w,
        sum(1 / vi / vi) AS w2,
        sum(d * d / vi) AS q,
        var_samp(d) AS variance_between,
        avg(vi) AS variance_within
    FROM deviations
    GROUP BY cohort_id
)
SELECT
    cohort_id, k, q,
    CASE WHEN k > 1 THEN coalesce(100 * greatest(0e0, (q - (k - 1)) / nullif(q, 0)), 0e0) END AS i2,
    k / w AS typical_variance,
    coalesce(greatest(0e0, (q - (k - 1)) / nullif(w - w2 / w, 0)), 0e0) AS tau2_dl,
    CASE WHEN k > 1 THEN greatest(0e0, variance_between - variance_within) ELSE 0e0 END AS tau2_he
FROM sums
