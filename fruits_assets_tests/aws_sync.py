"""`aws s3 sync SOURCE TARGET`, and nothing else of the AWS CLI, for people who do not have it."""

import argparse
import sys
from pathlib import Path

import boto3


def main() -> int:
    """Copies a folder into a bucket, or the other way round, and says what it copied."""
    parser = argparse.ArgumentParser(prog="aws", allow_abbrev=False)
    parser.add_argument("service", choices=["s3"])
    parser.add_argument("command", choices=["sync"])
    parser.add_argument("source")
    parser.add_argument("target")
    wanted = parser.parse_args()
    up = wanted.target.startswith("s3://")
    if up == wanted.source.startswith("s3://"):
        parser.error("one of the two must be a folder, and the other an s3:// URI")
    uri, folder = (
        (wanted.target if up else wanted.source),
        Path(wanted.source if up else wanted.target),
    )
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    client = boto3.client("s3")
    if up:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            key = f"{prefix}{file.relative_to(folder).as_posix()}"
            client.upload_file(str(file), bucket, key)
            sys.stdout.write(f"upload: {file} to s3://{bucket}/{key}\n")
        return 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Contents", ()):
            file = folder / found["Key"].removeprefix(prefix)
            file.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, found["Key"], str(file))
            sys.stdout.write(f"download: s3://{bucket}/{found['Key']} to {file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
