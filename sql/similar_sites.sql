-- similar_sites: what holds at each site, once it has heard of those that are like it?
-- inputs: local_means
-- cohorts: every_packet
-- output: definition, whose similarity; own, what the site saw; alike, what the similar ones of the other sites say,
--   weighted by score and precision, with alike_se, NULL where none is; effective_sites, to how many equal ones that
--   comes down; pooled, what all others say; own_share, alike_share, pooled_share, which add up to 1: how much of
--   each is believed; shrunk, their sum, with se and 95 % ci_* (normal): what holds at this site; tau2_explained and
--   tau2_left: of the differences between sites, what similarity foretells and what it does not, squared on
--   metric_name's scale
-- grain: one packet with a variance and a context, at an address whose domain has a similarity definition; none where
--   there is no other site
-- source: empirical Bayes in two steps (Morris 1983, JASA 78:47): similar sites' mean is shrunk to everybody's, the
--   site's own effect to that. tau2_explained is the moment estimator of the covariance, (own - pooled) with (alike
--   - pooled), and tau2_left that of the variance of what is left; scores: qis_connectors/similarity.py
-- answer: yes
WITH explained AS (
    SELECT
        address, metric_name, intervention_type,
        greatest(0e0, sum(w * (yi - pooled) * (alike - pooled)) / sum(w)) AS tau2_explained
    FROM local_means
    WHERE alike IS NOT NULL
    GROUP BY address, metric_name, intervention_type
),
believed AS (
    SELECT
        local_means.*,
        coalesce(tau2_explained, 0e0) AS tau2_explained,
        coalesce(tau2_explained / nullif(tau2_explained + alike_variance, 0), 0e0) AS belief
    FROM local_means
    LEFT JOIN explained USING (address, metric_name, intervention_type)
),
foretold AS (
    SELECT
        *,
        pooled + CASE WHEN belief > 0 THEN belief * (alike - pooled) ELSE 0e0 END AS centre,
        pooled_variance + (1 - belief) * tau2_explained AS centre_variance
    FROM believed
),
remaining AS (
    SELECT
        address, metric_name, intervention_type,
        greatest(0e0, sum(w * ((yi - centre) * (yi - centre) - vi - centre_variance)) / sum(w)) AS tau2_left
    FROM foretold
    GROUP BY address, metric_name, intervention_type
),
trusted AS (
    SELECT
        *,
        (tau2_left + centre_variance) / (tau2_left + centre_variance + vi) AS trust
    FROM foretold
    JOIN remaining USING (address, metric_name, intervention_type)
),
shrunken AS (
    SELECT *, trust * yi + (1 - trust) * centre AS shrunk, sqrt(trust * vi) AS se
    FROM trusted
)
SELECT
    address, metric_name, intervention_type, node_id, packet_id, definition,
    yi AS own,
    alike,
    sqrt(alike_variance) AS alike_se,
    effective_sites,
    pooled,
    trust AS own_share,
    (1 - trust) * belief AS alike_share,
    (1 - trust) * (1 - belief) AS pooled_share,
    shrunk, se,
    shrunk - 1.959963984540054e0 * se AS ci_lb,
    shrunk + 1.959963984540054e0 * se AS ci_ub,
    tau2_explained,
    tau2_left
FROM shrunken
ORDER BY address, metric_name, intervention_type, node_id, packet_id
