"""What each asset computes: tables and vectors in, tables out.

Between the numeric core, which knows arrays only, and the assets, which know Dagster; neither the one nor the
other is imported the wrong way round. Files are not read here (except for the search indexes, which map
theirs).
"""
