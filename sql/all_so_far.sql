-- all_so_far: which effects were known when each packet came?
-- inputs: effects
-- output: cohort, 'until ' and the packet_id that came last; yi, vi: effect and sampling variance
-- grain: one packet, for itself and for each that came later: k(k+1)/2 rows for k packets. Packets of the
--   same millisecond come in the order of their ids
-- source: Lau et al. (1992), NEJM 327:248, cumulative meta-analysis
-- answer: no
SELECT address, metric_name, intervention_type, 'until ' || latest.packet_id AS cohort, earlier.yi, earlier.vi
FROM effects AS latest
JOIN effects AS earlier USING (address, metric_name, intervention_type)
WHERE
    latest.vi IS NOT NULL AND earlier.vi IS NOT NULL
    AND (
        earlier.timestamp_utc < latest.timestamp_utc
        OR (earlier.timestamp_utc = latest.timestamp_utc AND earlier.packet_id <= latest.packet_id)
    )
