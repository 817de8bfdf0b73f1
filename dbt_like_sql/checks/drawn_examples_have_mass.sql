-- Whatever was drawn for a task has mass there. Where not, delete the task's file in storage/sampled_subset, then
-- refresh.
SELECT DISTINCT task, content_id
FROM stg_samples
ANTI JOIN stg_probabilities USING (task, content_id)
ORDER BY task, content_id
