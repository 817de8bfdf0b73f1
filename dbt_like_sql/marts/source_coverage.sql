-- What each source gives to each task, against what it has: a lift of 2 is twice as many draws as chance would give.
-- The pool is all sources, also those that a task excludes.
WITH pool AS (
    SELECT source, candidates, candidates / sum(candidates) OVER () AS pool_share
    FROM pool_summary
    WHERE candidates > 0
),
given AS (
    SELECT task, source, count(*) AS with_mass, sum(probability) AS mass
    FROM stg_probabilities
    GROUP BY task, source
),
drawn AS (
    SELECT task, source, count(*) AS drawn FROM stg_samples GROUP BY task, source
),
tasks AS (
    SELECT task, count(*) AS draws FROM stg_samples GROUP BY task
)
SELECT
    task,
    source,
    candidates,  -- Distinct records of the source.
    pool_share,  -- Its share of all candidates.
    coalesce(with_mass, 0) AS with_mass,  -- How many of them the task gives mass to.
    coalesce(mass, 0) AS mass,  -- Its share of the task's mass.
    coalesce(drawn, 0) AS drawn,  -- Draws from it, over all epochs.
    coalesce(drawn, 0) / draws AS drawn_share,  -- Its share of the task's draws.
    coalesce(drawn, 0) / draws / pool_share AS lift,  -- drawn_share over pool_share.
FROM tasks
CROSS JOIN pool
LEFT JOIN given USING (task, source)
LEFT JOIN drawn USING (task, source)
ORDER BY task, drawn DESC, mass DESC, source
