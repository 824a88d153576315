"""The Dagster UI on this machine, for its own pages only."""
