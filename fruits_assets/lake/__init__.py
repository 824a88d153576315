"""Where everything that the pipeline produces lies, and how it is published."""
