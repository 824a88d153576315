"""The Spark computations: plain functions that know neither Dagster nor where they run."""
