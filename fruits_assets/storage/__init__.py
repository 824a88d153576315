"""Where bytes lie: folders and buckets behind one interface, and the Parquet files in them.

Nothing here knows of Spark or Dagster, or of what the bytes mean.
"""
