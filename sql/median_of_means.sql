-- median_of_means: what is the middle of the means of small blocks of packets?
-- inputs: effects
-- output: median_of_means, on metric_name's scale: the median of the means of blocks of three packets (the last may
--   be smaller); which packets share a block is drawn by the hash of their ids, which nobody can choose freely and
--   every engine computes alike. Blocks of three outlive liars in up to a fifth of the packets
-- grain: one (address, metric_name, intervention_type)
-- source: Nemirovsky & Yudin (1983), Problem Complexity and Method Efficiency in Optimization; Lugosi & Mendelson
--   (2019), Found Comput Math 19:1145
-- answer: no
WITH drawn AS (
    SELECT
        address, metric_name, intervention_type, yi,
        row_number() OVER (
            PARTITION BY address, metric_name, intervention_type ORDER BY md5(packet_id), packet_id, node_id
        ) AS place
    FROM effects
),
blocks AS (
    SELECT address, metric_name, intervention_type, floor((place - 1) / 3) AS block, avg(yi) AS mean
    FROM drawn
    GROUP BY address, metric_name, intervention_type, floor((place - 1) / 3)
)
SELECT address, metric_name, intervention_type, median(mean) AS median_of_means
FROM blocks
GROUP BY address, metric_name, intervention_type
