"""SQL over the results: relations, the models and checks of dbt_like_sql/, and the warehouse that a prompt opens.

It knows neither Dagster (``assets.sql_models``) nor what depends on what (``graph``).
"""
