-- Every candidate of every source, without its text.
SELECT
    source,
    content_id,
    variants[1].record_id AS id,  -- Its first record id.
    count,
    len(variants) AS variants,  -- How many different records have this text.
    length(text) AS characters,  -- Length of the text.
FROM candidate_corpus
ORDER BY source, content_id
