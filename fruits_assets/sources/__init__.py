"""Where photos come from: a folder or a bucket, and how it is laid out."""
