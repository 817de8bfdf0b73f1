"""How Dagster runs the pipeline: partitions, resources, storage, and bringing everything up to date."""
