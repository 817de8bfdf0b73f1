-- No density is below the number of the candidate's own copies. Where one is, delete storage/kernel_sums and the
-- source's file in storage/faiss_index, then refresh.
SELECT source, content_id, count, density
FROM stg_densities
WHERE density < count * (1 - 1e-9)
ORDER BY source, content_id
