-- Every candidate that has mass for a task.
SELECT
    task,
    source,
    id,
    content_id,
    probability,
    density,
    count,
    nearest_query,
    distance,
FROM selection_probabilities
ORDER BY task, probability DESC, source, content_id
