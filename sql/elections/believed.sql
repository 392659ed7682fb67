-- believed: which of the known packets may speak, and with how much certainty at most?
-- inputs: known
-- output: d, the effect less `middle`, the median of what other sites had seen; vi, never below half the median
--   variance of those, so that no claim of certainty weighs more than twice the usual
-- grain: one election, target and known packet; none where fewer than three packets of other sites are known. From
--   five on, what lies over 3.5 MAD from their median is left out, so that a liar or a slip has no say
-- source: Hampel (1985), Technometrics 27:95, rule X84: 5.2 raw MAD, 3.5 of those that estimate a standard deviation
-- answer: no
WITH middles AS (
    SELECT
        election, target, count(*) AS k, median(yi) AS middle, median(vi) / 2 AS least_variance
    FROM known
    WHERE NOT own
    GROUP BY election, target
    HAVING count(*) >= 3
),
spreads AS (
    SELECT
        election, target, k, middle, least_variance, 1.482602218505602e0 * median(abs(yi - middle)) AS mad
    FROM known
    JOIN middles USING (election, target)
    WHERE NOT own
    GROUP BY election, target, k, middle, least_variance
)
SELECT
    election, target, target_profile, own, packet_id, profile, middle,
    yi - middle AS d,
    greatest(vi, least_variance) AS vi
FROM known
JOIN spreads USING (election, target)
WHERE k < 5 OR mad = 0 OR abs(yi - middle) <= 3.5e0 * mad
