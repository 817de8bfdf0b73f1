-- The probabilities of every task sum to 1. Where not, delete the task's file in storage/selection_probabilities, then
-- refresh.
SELECT task, sum(probability) AS total
FROM stg_probabilities
GROUP BY task
HAVING abs(sum(probability) - 1) > 1e-9
ORDER BY task
