-- severity: warn
-- No two tasks have the same sample. Where they have, one query set may be a copy of the other.
SELECT task, other_task
FROM task_overlap
WHERE jaccard = 1
ORDER BY task, other_task
