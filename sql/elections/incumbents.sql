-- incumbents: which network has had the say, and since when? One term more
-- inputs: bets
-- repeat: first_incumbents
-- output: the columns of first_incumbents
-- grain: one control, election in time and term: it ends in the first round in which the bets on another network,
--   begun with the term, have grown to what is needed
-- source: as in first_incumbents and bets; the mean over the fractions is a fair bet too
-- answer: no
WITH stakes AS (
    SELECT
        control, election, number, since, needed, incumbent, challenger, bets.round, fraction,
        growth - coalesce(growth_before, 0e0) AS growth
    FROM incumbents
    JOIN bets USING (control, election, incumbent)
    LEFT JOIN (
        SELECT control, election, incumbent, challenger, fraction, round AS since, growth AS growth_before
        FROM bets
    ) AS before USING (control, election, incumbent, challenger, fraction, since)
    WHERE NOT settled AND bets.round > since
),
wealth AS (
    SELECT
        control, election, number, needed, challenger, round, avg(exp(least(growth, 700e0))) AS evidence
    FROM stakes
    GROUP BY control, election, number, needed, challenger, round
),
reached AS (
    SELECT
        control, election, number, needed, challenger, round, evidence,
        row_number() OVER (PARTITION BY control, election ORDER BY round, evidence DESC, challenger) AS place
    FROM wealth
    WHERE evidence >= needed
)
SELECT
    control, election, number + 1 AS number, challenger AS incumbent, round AS since, evidence, needed, false AS settled
FROM reached
WHERE place = 1
UNION ALL
SELECT control, election, number, incumbent, since, evidence, needed, true AS settled
FROM incumbents
