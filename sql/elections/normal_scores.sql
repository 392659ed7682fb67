-- normal_scores: how far was each forecast from what came?
-- inputs: arrivals, forecasts
-- output: sd, that of the forecast packet: of the true effect and the packet's own sampling; unit, the same of
--   everyone's forecast; score, the continuous ranked probability score in units, smaller being better, and 4 at
--   most: what lies far beyond every forecast costs all networks the same, so that no liar decides; mean and sd also
--   in units
-- grain: one control, network, election and packet
-- source: Gneiting & Raftery (2007), JASA 102:359, eq. 21 with the sign turned; the normal distribution function:
--   Hart (1968) as in West (2005), Wilmott May:70, to 15 digits
-- answer: no
WITH paired AS (
    SELECT control, network, election, packet_id, round, yi, mean, sqrt(variance + vi) AS sd
    FROM forecasts
    JOIN (
        SELECT address, metric_name, intervention_type, design, packet_id, election, round, yi, vi
        FROM arrivals
    ) AS packet USING (address, metric_name, intervention_type, design, packet_id)
    WHERE mean IS NOT NULL
),
scaled AS (
    SELECT paired.*, everyone.sd AS unit, (paired.yi - paired.mean) / paired.sd AS z
    FROM paired
    JOIN paired AS everyone USING (control, election, packet_id)
    WHERE everyone.network = 'everyone'
),
-- x is |z| as far as exp(-x^2 / 2) can be told from zero.
bounded AS (
    SELECT *, least(abs(z), 37e0) AS x
    FROM scaled
),
-- tail is the chance of a normal number above x.
tails AS (
    SELECT
        *,
        exp(-x * x / 2) AS height,
        CASE WHEN x > 7 THEN 0e0 ELSE exp(-x * x / 2)
            * ((((((3.52624965998911e-2 * x + 0.700383064443688e0) * x + 6.37396220353165e0) * x
            + 33.912866078383e0) * x + 112.079291497871e0) * x + 221.213596169931e0) * x + 220.206867912376e0)
            / (((((((8.83883476483184e-2 * x + 1.75566716318264e0) * x + 16.064177579207e0) * x
            + 86.7807322029461e0) * x + 296.564248779674e0) * x + 637.333633378831e0) * x + 793.826512519948e0) * x
            + 440.413735824752e0)
        END AS tail
    FROM bounded
)
SELECT
    control, network, election, packet_id, round,
    mean / unit AS mean,
    sd / unit AS sd,
    least(4e0, sd / unit * (
        abs(z) * (1 - 2 * tail) + 2 * height / 2.5066282746310005e0 - 1 / 1.7724538509055160e0
    )) AS score
FROM tails
