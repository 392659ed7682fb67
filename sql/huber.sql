-- huber: where is the mean of effects that are pulled in to 1.345 MAD of it? One step of the search for it
-- inputs: effects
-- repeat: huber_start
-- output: the columns of huber_start, one step nearer
-- grain: one (address, metric_name, intervention_type)
-- source: Huber (1964), Ann Math Stat 35:73, with the scale held at the MAD; 1.345 keeps 95 % efficiency on
--   normal effects; Newton's step, held to twice the step of Huber (1981), Robust Statistics, 6.7, which
--   always converges
-- answer: no
WITH stepped AS (
    SELECT
        address, metric_name, intervention_type, mad, huber,
        huber
        + sum(greatest(-1.345e0 * mad, least(1.345e0 * mad, yi - huber)))
        / greatest(count(*) / 2.0, count(CASE WHEN abs(yi - huber) <= 1.345e0 * mad THEN 1 END)) AS nearer
    FROM huber
    JOIN effects USING (address, metric_name, intervention_type)
    WHERE NOT settled
    GROUP BY address, metric_name, intervention_type, mad, huber
)
SELECT
    address, metric_name, intervention_type, mad,
    nearer AS huber,
    abs(nearer - huber) <= 1e-12 * (mad + abs(nearer)) AS settled
FROM stepped
UNION ALL
SELECT address, metric_name, intervention_type, mad, huber, settled
FROM huber
WHERE settled
