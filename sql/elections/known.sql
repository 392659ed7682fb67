-- known: what had other sites seen, and the site itself, before each packet came?
-- inputs: arrivals
-- output: target, the packet that is to be foreseen, its node_id's profile and its round; own, whether the known
--   packet is of the same site; packet_id, profile, yi and vi of the known packet
-- grain: one election, target and packet known before it
-- source: none; packets of one time know nothing of one another
-- answer: no
SELECT
    target.election, target.packet_id AS target, target.profile AS target_profile,
    before.node_id = target.node_id AS own,
    before.packet_id, before.profile, before.yi, before.vi
FROM arrivals AS target
JOIN arrivals AS before
    ON before.election = target.election
    AND before.timestamp_utc < target.known_before
    AND before.packet_id <> target.packet_id
