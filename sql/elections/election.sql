-- election: which network foresees best, is that more than chance, and who has the say?
-- inputs: normal_scores, arrivals, forecasts, bets, incumbents, shares
-- output: design, as in arrivals; forecasts scored, and in_advance, how many of them are of packets that came after
--   the network was made known; score, their mean, and gain, everyone's mean score less this one, in standard
--   deviations of everyone's forecast; share, the newest; evidence, the most that bets on it against everyone have
--   grown to, and needed, what lets it take over (both NULL where left out: no order, no bets); shuffled, the share of
--   controls, this one counted, whose gain is no less with the contexts permuted among the sites: a p-value;
--   shuffled_evidence, one for the election: the same share of those whose most evidence, of whichever network, is no
--   less; verdict: a switch stands where that, and left out a gain counts where `shuffled`, is at most 5 %
-- grain: one (address, metric_name, intervention_type), design and network
-- source: shuffled: Phipson & Smyth (2010), Stat Appl Genet Mol Biol 9:39: where contexts mean nothing the
--   true election is one of (controls + 1) that are alike, so that chance makes such a verdict in 5 % at most
-- answer: yes
WITH means AS (
    SELECT control, election, network, count(*) AS forecasts, avg(score) AS score
    FROM normal_scores
    GROUP BY control, election, network
),
gains AS (
    SELECT
        one.control, one.election, one.network, one.forecasts, one.score, everyone.score - one.score AS gain
    FROM means AS one
    JOIN means AS everyone
        ON everyone.control = one.control AND everyone.election = one.election AND everyone.network = 'everyone'
),
controls AS (
    SELECT
        shuffled.election, shuffled.network,
        (1e0 + count(CASE WHEN shuffled.gain >= seen.gain THEN 1 END)) / (1 + count(*)) AS shuffled
    FROM gains AS shuffled
    JOIN gains AS seen ON seen.election = shuffled.election AND seen.network = shuffled.network
    WHERE shuffled.control > 0 AND seen.control = 0 AND shuffled.network <> 'everyone'
    GROUP BY shuffled.election, shuffled.network
),
wealth AS (
    SELECT control, election, challenger, round, avg(exp(least(growth, 700e0))) AS evidence
    FROM bets
    WHERE incumbent = 'everyone'
    GROUP BY control, election, challenger, round
),
highest AS (
    SELECT control, election, challenger AS network, max(evidence) AS evidence
    FROM wealth
    GROUP BY control, election, challenger
),
highest_of_any AS (
    SELECT control, election, max(evidence) AS evidence
    FROM highest
    GROUP BY control, election
),
shuffles AS (
    SELECT
        election, count(CASE WHEN shuffled.evidence >= seen.evidence THEN 1 END) * 1e0 / count(*) AS shuffled_evidence
    FROM highest_of_any AS shuffled
    JOIN (SELECT election, evidence FROM highest_of_any WHERE control = 0) AS seen USING (election)
    GROUP BY election
),
terms AS (
    SELECT
        election, number, incumbent, needed,
        row_number() OVER (PARTITION BY election ORDER BY number DESC) AS place
    FROM incumbents
    WHERE control = 0
),
newest AS (
    SELECT
        address, metric_name, intervention_type, 'in_time' AS design, network, max_by(share_after, round) AS share
    FROM shares
    GROUP BY address, metric_name, intervention_type, network
),
known AS (
    SELECT DISTINCT election, address, metric_name, intervention_type, design
    FROM arrivals
),
advance AS (
    SELECT
        address, metric_name, intervention_type, design, network,
        count(CASE WHEN NOT replayed THEN 1 END) AS in_advance
    FROM forecasts
    WHERE control = 0 AND mean IS NOT NULL
    GROUP BY address, metric_name, intervention_type, design, network
)
SELECT
    address, metric_name, intervention_type, design, network, forecasts, in_advance, score, gain, share, evidence,
    needed, shuffled,
    CASE WHEN design = 'in_time' THEN shuffled_evidence END AS shuffled_evidence,
    CASE
        WHEN design = 'left_out' AND network = 'everyone' THEN 'what the others are compared with'
        WHEN design = 'left_out' AND gain <= 0 THEN 'no better than everyone'
        WHEN design = 'left_out' AND shuffled > 0.05e0 THEN 'better than everyone, but so are shuffled contexts'
        WHEN design = 'left_out' THEN 'better than everyone and than shuffled contexts'
        WHEN incumbent = network AND number = 0 THEN 'has the say: no other has reached the margin'
        WHEN incumbent = network AND shuffled_evidence <= 0.05e0 THEN 'has the say: it reached the margin'
        WHEN incumbent = network THEN 'reached the margin, but so did shuffled contexts: no switch'
        WHEN network = 'everyone' AND shuffled_evidence > 0.05e0
        THEN 'keeps the say: shuffled contexts reach the margin too'
        WHEN network = 'everyone' THEN 'has lost the say'
        WHEN gain <= 0 THEN 'no better than everyone'
        ELSE 'better than everyone, below the margin'
    END AS verdict
FROM gains
JOIN known USING (election)
LEFT JOIN advance USING (address, metric_name, intervention_type, design, network)
LEFT JOIN newest USING (address, metric_name, intervention_type, design, network)
LEFT JOIN (
    SELECT election, network, evidence FROM highest WHERE control = 0
) AS strongest USING (election, network)
LEFT JOIN controls USING (election, network)
LEFT JOIN shuffles USING (election)
LEFT JOIN (SELECT election, number, incumbent, needed FROM terms WHERE place = 1) AS term USING (election)
WHERE gains.control = 0
ORDER BY address, metric_name, intervention_type, design, score, network
