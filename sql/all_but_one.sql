-- all_but_one: which effects are left when each packet in turn stays out?
-- inputs: effects
-- output: cohort, 'without ' and the packet_id that stays out; yi, vi: effect and sampling variance of the
--   ones that stay in
-- grain: one packet that stays in, for one packet that stays out: k(k-1) rows for k packets
-- source: Viechtbauer & Cheung (2010), Research Synthesis Methods 1:112, outlier and influence diagnostics
-- answer: no
SELECT
    address, metric_name, intervention_type, 'without ' || stays_out.packet_id AS cohort, stays_in.yi, stays_in.vi
FROM effects AS stays_out
JOIN effects AS stays_in USING (address, metric_name, intervention_type)
WHERE stays_out.vi IS NOT NULL AND stays_in.vi IS NOT NULL AND stays_out.packet_id <> stays_in.packet_id
