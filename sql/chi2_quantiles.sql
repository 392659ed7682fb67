-- chi2_quantiles: how large may a sum of k - 1 squared standard normals be by chance?
-- inputs: chi2_crit, fixed_effect
-- output: chi2_025, chi2_950, chi2_975: the points of chi2 with df degrees of freedom below which 2.5, 95 and
--   97.5 % lie
-- grain: one df = k - 1 >= 1 of some cohort
-- source: table up to df 2000; beyond it the expansion of Goldberg & Levine (1946), Ann Math Stat 17:216, as
--   in Abramowitz & Stegun (1964) 26.4.18 and Fisher & Cornish (1960): relative error below 1e-9 there
-- answer: no
WITH degrees_of_freedom AS (
    SELECT DISTINCT k - 1 AS df
    FROM fixed_effect
    WHERE k > 1
),
points AS (
    SELECT df, share, z
    FROM degrees_of_freedom
    CROSS JOIN (
        VALUES (25, -1.959963984540054e0), (950, 1.644853626951472e0), (975, 1.959963984540054e0)
    ) AS normal (share, z)
),
expanded AS (
    SELECT
        df, share,
        df + sqrt(2e0 * df) * z
        + 2 * (z * z - 1) / 3
        + (pow(z, 3) - 7 * z) / (9 * sqrt(2e0 * df))
        - (6 * pow(z, 4) + 14 * pow(z, 2) - 32) / (405 * df)
        + (9 * pow(z, 5) + 256 * pow(z, 3) - 433 * z) / (4860 * sqrt(2e0) * pow(df, 1.5e0)) AS point
    FROM points
)
SELECT
    df,
    coalesce(max(chi2_crit.chi2_025), max(CASE WHEN share = 25 THEN point END)) AS chi2_025,
    coalesce(max(chi2_crit.chi2_950), max(CASE WHEN share = 950 THEN point END)) AS chi2_950,
    coalesce(max(chi2_crit.chi2_975), max(CASE WHEN share = 975 THEN point END)) AS chi2_975
FROM expanded
LEFT JOIN chi2_crit USING (df)
GROUP BY df
