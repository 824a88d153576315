"""On which machines transforms run."""
