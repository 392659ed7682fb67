-- mantel_haenszel: what is the answer where sites send their counts, empty cells and all?
-- inputs: cells
-- output: measure (log_odds_ratio, log_risk_ratio or risk_difference) and method (MH, and Peto for the odds
--   ratio); k, the packets with cells; participants, events; estimate, se, 95 % ci_* (normal) on measure's scale,
--   NULL where the counts do not define it. No cell is corrected; fixed effect: all sites share one
-- grain: one (address, metric_name, intervention_type) with cells, measure and method
-- source: Mantel & Haenszel (1959), JNCI 22:719; variances: odds ratio Robins, Breslow & Greenland (1986),
--   Biometrics 42:311; risk ratio Greenland & Robins (1985), Biometrics 41:55; risk difference Sato, Greenland &
--   Robins (1989), Biometrics 45:1323; Peto: Yusuf et al. (1985), Prog Cardiovasc Dis 27:335
-- answer: yes
WITH tables AS (
    SELECT
        *,
        a + c AS m1, b + d AS m2,
        a * d / n AS r, b * c / n AS s, (a + d) / n AS p, (b + c) / n AS q
    FROM cells
),
sums AS (
    SELECT
        address, metric_name, intervention_type,
        count(*) AS k, sum(n) AS participants, sum(m1) AS events,
        sum(r) AS r, sum(s) AS s, sum(p * r) AS pr, sum(p * s + q * r) AS psqr, sum(q * s) AS qs,
        sum(a * n2 / n) AS treated, sum(c * n1 / n) AS control,
        sum((n1 * n2 * m1 / n - a * c) / n) AS spread,
        sum(n1 * n2 / n) AS arms,
        sum(c * (n1 / n) * (n1 / n) - a * (n2 / n) * (n2 / n) + (n1 / n) * (n2 / n) * (n2 - n1) / 2) AS sato_p,
        sum(a * (n2 - c) / n + c * (n1 - a) / n) / 2 AS sato_q,
        sum(a - n1 * m1 / n) AS excess,
        sum(CASE WHEN n > 1 THEN n1 * n2 * m1 * m2 / (n * n * (n - 1)) END) AS hypergeometric
    FROM tables
    GROUP BY address, metric_name, intervention_type
),
answers AS (
    SELECT
        address, metric_name, intervention_type, 'log_odds_ratio' AS measure, 'MH' AS method,
        k, participants, events,
        CASE WHEN r > 0 AND s > 0 THEN ln(r / s) END AS estimate,
        CASE
            WHEN r > 0 AND s > 0 THEN sqrt((pr / r / r + psqr / r / s + qs / s / s) / 2)
        END AS se
    FROM sums
    UNION ALL
    SELECT
        address, metric_name, intervention_type, 'log_risk_ratio', 'MH', k, participants, events,
        CASE WHEN treated > 0 AND control > 0 THEN ln(treated / control) END,
        CASE WHEN treated > 0 AND control > 0 THEN sqrt(greatest(0e0, spread / treated / control)) END
    FROM sums
    UNION ALL
    SELECT
        address, metric_name, intervention_type, 'risk_difference', 'MH', k, participants, events,
        (treated - control) / arms,
        sqrt(greatest(0e0, (treated - control) / arms * sato_p + sato_q)) / arms
    FROM sums
    UNION ALL
    SELECT
        address, metric_name, intervention_type, 'log_odds_ratio', 'Peto', k, participants, events,
        CASE WHEN hypergeometric > 0 THEN excess / hypergeometric END,
        CASE WHEN hypergeometric > 0 THEN 1 / sqrt(hypergeometric) END
    FROM sums
)
SELECT
    *,
    estimate - 1.959963984540054e0 * se AS ci_lb,
    estimate + 1.959963984540054e0 * se AS ci_ub
FROM answers
ORDER BY address, metric_name, intervention_type, measure, method
