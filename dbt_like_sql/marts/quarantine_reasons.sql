-- Why records cannot be used: how many, and where the first one of each kind stands.
SELECT
    source,
    reason,  -- Why they cannot be used.
    count(*) AS records,  -- How many.
    count(DISTINCT file) AS files,  -- In how many files.
    arg_min(file, (file, line)) AS first_file,  -- Where the first one is.
    arg_min(line, (file, line)) AS first_line,  -- Its line or row.
    arg_min(excerpt, (file, line)) AS excerpt,  -- What stands there.
FROM quarantine
GROUP BY source, reason
ORDER BY records DESC, source, reason
