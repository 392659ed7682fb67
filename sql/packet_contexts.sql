-- packet_contexts: what does each packet say of its site or cohort, in its own words?
-- inputs: packets
-- output: context, the packet's JSON, never NULL
-- grain: one packet that has a context: the latest one of a packet_id of one node at one address
-- source: none; the packet's own field
-- answer: no
SELECT
    address, metric_name, intervention_type, node_id, packet_id, max_by(context, timestamp_utc) AS context
FROM packets
WHERE context IS NOT NULL
GROUP BY address, metric_name, intervention_type, node_id, packet_id
