"""The Dagster page on the pipelines: assets named for their data, each a few lines around a function of pipelines/."""
