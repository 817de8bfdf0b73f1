-- Whether a task's sample is flooded by near-duplicates: their share of the pool, of the mass and of the draws. The
-- pool is as the default encoder sees it, all else as the task's own does.
WITH pool AS (
    SELECT count(*) FILTER (has_near_duplicates) / count(*) AS pool_share FROM stg_densities
),
mass AS (
    SELECT
        task,
        count(*) AS with_mass,
        count(*) FILTER (density > count * (1 + 1e-9)) AS near_duplicates,
        coalesce(sum(probability) FILTER (density > count * (1 + 1e-9)), 0) AS mass,
    FROM stg_probabilities
    GROUP BY task
),
drawn AS (
    SELECT task, count(*) AS draws, count(*) FILTER (mass.density > count * (1 + 1e-9)) AS drawn
    FROM stg_samples AS drawn
    JOIN stg_probabilities AS mass USING (task, source, content_id)
    GROUP BY task
)
SELECT
    task,
    pool_share,  -- Share of all candidates that have near-duplicates.
    with_mass,  -- Candidates that the task gives mass to.
    near_duplicates,  -- How many of those have near-duplicates.
    mass,  -- Their share of the task's mass.
    drawn,  -- How many were drawn, over all epochs.
    drawn / draws AS drawn_share,  -- Their share of the draws.
FROM mass
JOIN drawn USING (task)
CROSS JOIN pool
ORDER BY task
