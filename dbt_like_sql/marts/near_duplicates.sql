-- The 10,000 candidates with the most near-duplicates, and what each task makes of them.
-- A density of 12 says that the pool holds about 12 of its kind, itself and its copies included. Which candidates are
-- near-duplicates of each other is not stored, so there is a row for each of a group.
WITH crowded AS (
    SELECT source, content_id, density FROM stg_densities WHERE has_near_duplicates
    ORDER BY density DESC, source, content_id
    LIMIT 10000
),
drawn AS (
    SELECT task, content_id, count(*) AS drawn FROM stg_samples GROUP BY task, content_id
),
used AS (
    SELECT
        p.source,
        p.content_id,
        count(*) AS tasks,
        sum(p.probability) AS mass,
        sum(coalesce(drawn, 0))::BIGINT AS drawn,
        list({'task': p.task, 'mass': p.probability, 'drawn': coalesce(drawn, 0)} ORDER BY p.task) AS by_task,
    FROM stg_probabilities AS p
    LEFT JOIN drawn USING (task, content_id)
    GROUP BY p.source, p.content_id
)
SELECT
    source,
    id,
    content_id,
    count,
    density,
    count / density AS weight,  -- As how many distinct candidates it counts.
    coalesce(tasks, 0) AS tasks,  -- How many tasks give it mass.
    coalesce(mass, 0) AS mass,  -- The mass of all tasks on it.
    coalesce(drawn, 0) AS drawn,  -- Draws of its text, over all tasks and epochs.
    coalesce(by_task, []) AS by_task,  -- Mass and draws of each task.
    left(text, 120) AS excerpt,  -- The beginning of the text.
FROM crowded
JOIN (SELECT source, content_id, variants[1].record_id AS id, count, text FROM candidate_corpus)
    USING (source, content_id)
LEFT JOIN used USING (source, content_id)
ORDER BY density DESC, source, content_id
