-- What each asset costs: how often it was made, how long that took, and how much it stores now.
WITH latest AS (
    SELECT asset, bytes, rows
    FROM materializations
    QUALIFY row_number() OVER (PARTITION BY asset, source, task ORDER BY made_at DESC) = 1
),
stored AS (
    SELECT asset, count(*) AS partitions, sum(bytes)::BIGINT AS bytes, sum(rows)::BIGINT AS rows
    FROM latest
    GROUP BY asset
)
SELECT
    asset,  -- Name of the asset or model.
    count(*) AS runs,  -- How often a partition of it was made.
    sum(seconds) AS seconds,  -- All of them together.
    median(seconds) AS median_seconds,  -- Of one partition.
    max(seconds) AS max_seconds,  -- The slowest one.
    max(peak_memory) AS peak_memory,  -- The most memory of a process that made one, in bytes.
    any_value(partitions) AS partitions,  -- How many partitions it has had.
    any_value(stored.bytes) AS bytes,  -- Size of their last results.
    any_value(stored.rows) AS rows,  -- Rows of their last results.
    max(made_at) AS last_made_at,  -- When one was made last (UTC).
FROM materializations
JOIN stored USING (asset)
GROUP BY asset
ORDER BY seconds DESC, asset
