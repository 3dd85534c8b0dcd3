"""The jobs: thin mains that put ``ingest`` and ``ncf`` on a Ray cluster."""
