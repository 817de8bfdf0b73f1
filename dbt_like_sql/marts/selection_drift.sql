-- Every sample that a task has had: what changed from one to the next, and how much of the first is left.
WITH numbered AS (
    SELECT
        * EXCLUDE (content_ids),
        content_ids,
        first_value(content_ids) OVER (PARTITION BY task ORDER BY number) AS first_ids,
    FROM selection_history
)
SELECT
    * EXCLUDE (content_ids, first_ids),
    len(content_ids) AS examples,  -- Distinct examples of the sample.
    kept / nullif(kept + dropped, 0) AS kept_share,  -- Share of the sample before that was kept.
    len(list_intersect(content_ids, first_ids)) / nullif(len(first_ids), 0)
        AS left_of_first,  -- Share of the task's first sample that is in it.
FROM numbered
ORDER BY task, number
