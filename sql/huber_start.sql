-- huber_start: where the search for the Huber estimate begins
-- inputs: scale
-- output: huber = the median; mad; settled, whether huber is final: without spread the median is the answer
-- grain: one (address, metric_name, intervention_type)
-- source: Huber (1964), Ann Math Stat 35:73
-- answer: no
SELECT address, metric_name, intervention_type, mad, median AS huber, NOT (mad > 0) AS settled
FROM scale
