-- How much the samples of two tasks have in common, for every two tasks.
WITH examples AS (
    SELECT DISTINCT task, content_id FROM stg_samples
),
sizes AS (
    SELECT task, count(*) AS examples FROM examples GROUP BY task
),
shared AS (
    SELECT a.task AS task, b.task AS other_task, count(*) AS shared
    FROM examples AS a
    JOIN examples AS b USING (content_id)
    WHERE a.task < b.task
    GROUP BY a.task, b.task
)
SELECT
    a.task,
    b.task AS other_task,  -- The second task of the pair.
    a.examples,  -- Distinct examples of the first.
    b.examples AS other_examples,  -- Distinct examples of the second.
    coalesce(shared, 0) AS shared,  -- Examples that both have.
    coalesce(shared, 0) / (a.examples + b.examples - coalesce(shared, 0)) AS jaccard,  -- Shared over all of both.
FROM sizes AS a
JOIN sizes AS b ON a.task < b.task
LEFT JOIN shared ON shared.task = a.task AND shared.other_task = b.task
ORDER BY jaccard DESC, a.task, b.task
