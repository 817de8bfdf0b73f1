-- How crowded it is around every candidate.
SELECT
    source,
    content_id,
    count,
    density,
    count / density AS weight,  -- As how many distinct candidates it counts, copies included.
    density > count * (1 + 1e-9) AS has_near_duplicates,  -- Whether another candidate is within the kernel radius.
FROM kde_densities
ORDER BY source, content_id
