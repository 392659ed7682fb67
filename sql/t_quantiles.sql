-- t_quantiles: how many standard errors hold 95 % when the spread itself is estimated from k effects?
-- inputs: t_crit, fixed_effect
-- output: t975, the 97.5 % point of Student's t with df = k - 1
-- grain: one df that some cohort has; none for k = 1
-- source: table up to df 2000; beyond it Abramowitz & Stegun (1964) 26.7.5, whose first left-out term is
--   below 1e-15 there
-- answer: no
WITH degrees_of_freedom AS (
    SELECT DISTINCT k - 1 AS df, 1.959963984540054e0 AS z
    FROM fixed_effect
    WHERE k > 1
),
terms AS (
    SELECT
        df, z,
        (pow(z, 3) + z) / 4 AS g1,
        (5 * pow(z, 5) + 16 * pow(z, 3) + 3 * z) / 96 AS g2,
        (3 * pow(z, 7) + 19 * pow(z, 5) + 17 * pow(z, 3) - 15 * z) / 384 AS g3,
        (79 * pow(z, 9) + 776 * pow(z, 7) + 1482 * pow(z, 5) - 1920 * pow(z, 3) - 945 * z) / 92160 AS g4
    FROM degrees_of_freedom
)
SELECT df, coalesce(t975, z + (g1 + (g2 + (g3 + g4 / df) / df) / df) / df) AS t975
FROM terms
LEFT JOIN t_crit USING (df)
