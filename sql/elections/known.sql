-- known: what had other sites seen, and the site itself, before each packet came?
-- inputs: arrivals
-- output: target, the row of arrivals that is to be foreseen, and target_profile, its profile; own, whether the known
--   packet is of the same site; packet_id, profile, yi and vi of the known packet
-- grain: one election, target and packet known before it, of each site the newest six: the world drifts, and what a
--   site saw long ago is not asked
-- source: none; packets of one time know nothing of one another
-- answer: no
WITH dated AS (
    SELECT
        *,
        lead(timestamp_utc, 6) OVER (
            PARTITION BY election, node_id ORDER BY timestamp_utc, packet_id
        ) AS forgotten_after
    FROM arrivals
)
SELECT
    target.election, target.target, target.profile AS target_profile,
    before.node_id = target.node_id AS own,
    before.packet_id, before.profile, before.yi, before.vi
FROM arrivals AS target
JOIN dated AS before
    ON before.election = target.election
    AND before.timestamp_utc < target.known_before
    AND (before.forgotten_after IS NULL OR before.forgotten_after >= target.known_before)
    AND before.packet_id <> target.packet_id
