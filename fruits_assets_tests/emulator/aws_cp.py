"""`aws s3 cp SOURCE TARGET`, and nothing else of the AWS CLI, for the machines of a cluster."""

import argparse
import os
import shutil
import sys
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def main() -> int:
    """Copies one object to a file, or to the standard output for `-`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="aws", allow_abbrev=False)
    parser.add_argument("service", choices=["s3"])
    parser.add_argument("command", choices=["cp"])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--only-show-errors", action="store_true")
    parser.add_argument("--no-progress", action="store_true")
    parser.add_argument("--region", default=os.environ.get("AWS_REGION"))
    wanted = parser.parse_args()
    bucket, _, key = wanted.source.removeprefix("s3://").partition("/")
    if not wanted.source.startswith("s3://") or not key:
        parser.error(f"only objects can be copied, but {wanted.source} is none")
    try:
        body = boto3.client("s3", region_name=wanted.region).get_object(Bucket=bucket, Key=key)
    except (BotoCoreError, ClientError) as error:
        sys.stderr.write(f"fatal error: {error}\n")
        return 1
    if wanted.target == "-":
        shutil.copyfileobj(body["Body"], sys.stdout.buffer)
        return 0
    target = Path(wanted.target)
    if wanted.target.endswith("/") or target.is_dir():
        target /= key.rpartition("/")[2]
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(body["Body"], file)
    if not wanted.only_show_errors:
        sys.stdout.write(f"download: {wanted.source} to {wanted.target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
