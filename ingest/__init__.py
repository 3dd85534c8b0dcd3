"""Ingestion: MovieLens files and TMDb records into Parquet. Knows neither Ray nor torch."""
