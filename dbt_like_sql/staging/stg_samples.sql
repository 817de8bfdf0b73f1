-- Every draw of every task, without its text.
SELECT
    task,
    epoch,
    draw,
    source,
    id,
    content_id,
    probability,
    density,
    nearest_query,
    distance,
    length(text) AS characters,  -- Length of the text.
FROM sampled_subset
ORDER BY task, epoch, draw
