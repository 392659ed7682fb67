-- foreseen: what does each network expect of each packet, from what was known before it came?
-- inputs: arrivals, everyone, nearby, networks
-- output: mean and variance of the true effect at the target's site, on metric_name's scale; the packet's own sampling
--   variance comes on top of it. neighbours, the effective number of similar packets; trust, from 0 to 1, how much
--   they count beside everyone. mean and variance are NULL where fewer than three packets of other sites are known
-- grain: one control, network, election and target
-- source: Morris (1983), JASA 78:47, empirical Bayes: the similar sites' mean is drawn towards everyone's by what their
--   likeness explains, tau2 - tau2_within; a network that explains nothing expects what everyone does
-- answer: no
WITH trusted AS (
    SELECT
        candidate, election, target, tau2_within, shift, shift_variance, neighbours,
        coalesce((tau2 - tau2_within) / nullif(tau2 - tau2_within + shift_variance, 0), 0e0) AS trust
    FROM nearby
),
expected AS (
    SELECT
        control, network, address, metric_name, intervention_type, design, packet_id, node_id, timestamp_utc,
        everyone.middle, everyone.shift AS shift_of_all, everyone.shift_variance AS variance_of_all, everyone.tau2,
        trusted.shift, trusted.shift_variance, trusted.tau2_within,
        coalesce(trusted.neighbours, 0e0) AS neighbours,
        coalesce(trusted.trust, 0e0) AS trust
    FROM arrivals
    JOIN networks USING (address)
    LEFT JOIN everyone USING (election, target)
    LEFT JOIN trusted USING (candidate, election, target)
)
SELECT
    control, network, address, metric_name, intervention_type, design, packet_id, node_id, timestamp_utc,
    middle + shift_of_all + trust * coalesce(shift - shift_of_all, 0e0) AS mean,
    CASE
        WHEN trust > 0
        THEN tau2_within + trust * shift_variance + (1 - trust) * (1 - trust) * variance_of_all
        ELSE tau2 + variance_of_all
    END AS variance,
    neighbours, trust
FROM expected
