-- context_values: what does each packet say of its site or cohort?
-- inputs: packet_contexts
-- output: variable, a name in the packet's context (letters, digits and underscores; others are left out);
--   value, as text; number, the same as a number, NULL where it is none
-- grain: one packet and variable; lists, objects and nulls are left out
-- source: none; the packet's own JSON
-- answer: no
WITH named AS (
    SELECT
        address, metric_name, intervention_type, node_id, packet_id, context,
        explode(json_object_keys(context)) AS variable
    FROM packet_contexts
),
-- Only words: what else a name may hold means something in a JSON path.
words AS (
    SELECT *
    FROM named
    WHERE translate(lower(variable), 'abcdefghijklmnopqrstuvwxyz0123456789_', '') = ''
),
valued AS (
    SELECT
        address, metric_name, intervention_type, node_id, packet_id, variable,
        get_json_object(context, '$.' || variable) AS value
    FROM words
)
SELECT *, try_cast(value AS DOUBLE) AS number
FROM valued
WHERE value IS NOT NULL AND substring(value, 1, 1) NOT IN ('[', '{')
