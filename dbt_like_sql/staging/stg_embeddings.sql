-- What the vectors of each source are like.
SELECT
    source,
    vectors,  -- How many vectors there are.
    dimensions,  -- Of each vector.
    mean_length,  -- Mean length of the vectors; 1 where they are normalised.
    concentration,  -- Length of the mean vector over the mean length: 1 where all point the same way.
FROM embedding_statistics
ORDER BY source
