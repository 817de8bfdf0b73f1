-- Every query of every task, without its text.
SELECT
    task,
    record_id,
    content_id,
    length(text) AS characters,  -- Length of the text.
FROM query_examples
ORDER BY task, record_id, content_id
