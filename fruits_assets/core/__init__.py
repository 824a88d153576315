"""What is computed, in NumPy, Pillow and LiteRT alone: no Spark, no Dagster."""
