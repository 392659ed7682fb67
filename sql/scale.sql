-- scale: where is the middle of the effects and how wide is their spread, one packet one vote?
-- inputs: effects
-- output: k, every packet, with or without a standard error; median; mad = 1.4826022 median |yi - median|, on
--   metric_name's scale
-- grain: one (address, metric_name, intervention_type)
-- source: Hampel (1974), JASA 69:383; 1.4826022 = 1 / (75 % point of the normal) makes the MAD of normal
--   effects their standard deviation
-- answer: no
WITH middle AS (
    SELECT address, metric_name, intervention_type, count(*) AS k, median(yi) AS middle
    FROM effects
    GROUP BY address, metric_name, intervention_type
)
SELECT
    address, metric_name, intervention_type, k,
    middle AS median,
    1.482602218505602e0 * median(abs(yi - middle)) AS mad
FROM effects
JOIN middle USING (address, metric_name, intervention_type)
GROUP BY address, metric_name, intervention_type, k, middle
