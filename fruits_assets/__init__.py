"""Fruits!: from fruit photos to compact features, as a Dagster asset pipeline on PySpark."""
