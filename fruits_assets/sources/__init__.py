"""Where photos come from: a folder, bucket, archive or table, and how it is laid out."""
