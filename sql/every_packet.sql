-- every_packet: which effects are pooled together?
-- inputs: effects
-- output: cohort, the label of the set, '': here there is one set a key; yi, vi: effect and sampling variance
-- grain: one packet with a variance, in the one cohort of its (address, metric_name, intervention_type)
-- source: none; this is the plain set, nothing weighted down
-- answer: no
SELECT address, metric_name, intervention_type, '' AS cohort, yi, vi
FROM effects
WHERE vi IS NOT NULL
