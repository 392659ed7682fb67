-- moderators: which effects can be set against which number of their context?
-- inputs: effects, context_values
-- output: model_id, a number for the key and variable; k, the packets in it; x = (number - centre) / spread, with
--   the mean and the standard deviation of the number; yi, vi
-- grain: one packet with a variance, for each variable whose every value is a finite number, with at least
--   three packets that do not all have the same number
-- source: Thompson & Higgins (2002), Stat Med 21:1559
-- answer: no
WITH numbered AS (
    SELECT address, metric_name, intervention_type, variable, yi, vi, number
    FROM effects
    JOIN context_values USING (address, metric_name, intervention_type, node_id, packet_id)
    WHERE vi IS NOT NULL
),
variables AS (
    SELECT
        address, metric_name, intervention_type, variable,
        row_number() OVER (ORDER BY address, metric_name, intervention_type, variable) AS model_id,
        count(*) AS k, avg(number) AS centre, stddev_samp(number) AS spread
    FROM numbered
    GROUP BY address, metric_name, intervention_type, variable
    HAVING
        count(*) > 2
        AND count(CASE WHEN abs(number) < 1e150 THEN 1 END) = count(*)
        AND max(number) > min(number)
)
SELECT
    model_id, address, metric_name, intervention_type, variable, k, centre, spread,
    (number - centre) / spread AS x, yi, vi
FROM numbered
JOIN variables USING (address, metric_name, intervention_type, variable)
WHERE spread > 0
