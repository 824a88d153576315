#!/bin/bash
# Bootstrap action of EMR: makes /opt/fruits, the Python environment that the pipeline runs in.
#
#     bootstrap.sh <s3:// URI of the archive> <its SHA-256, in hexadecimal digits>
#
# The archive is what environment.py builds. A node that has it already is left as it is. Where
# anything is wrong the node does not start, so that no step ever meets a broken environment.
set -euo pipefail
umask 022 # Spark's containers run as other users than this one, and only read

TARGET=/opt/fruits
UNPACKED=$TARGET/archive.sha256 # written last: without it the environment is not whole

fail() {
	echo "fruits bootstrap: $*" >&2
	exit 1
}

[ $# -eq 2 ] || fail "expected an s3:// URI and a SHA-256, got $# argument(s)"
uri=$1
sha256=$2

if [ -f "$UNPACKED" ] && [ "$(cat "$UNPACKED")" = "$sha256" ]; then
	exit 0
fi

# Releases of EMR bring Python 3.11, but not all as their default; this is for those to come.
if ! command -v python3.11 > /dev/null; then
	sudo dnf install -y -q python3.11 > /dev/null || fail "python3.11 could not be installed by dnf"
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
aws s3 cp --only-show-errors "$uri" "$folder/archive" ||
	fail "$uri could not be downloaded: is it there, and may the instance profile read it?"
echo "$sha256  $folder/archive" | sha256sum --check --status ||
	fail "$uri is not what was uploaded: its SHA-256 is not $sha256"

sudo mkdir -p "$TARGET"
sudo chown "$(id -u):$(id -g)" "$TARGET"
python3.11 -m venv --clear --without-pip "$TARGET" || fail "$TARGET could not be made by python3.11"
site=$("$TARGET/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
tar -xzf "$folder/archive" --no-same-owner -C "$site" || fail "$uri could not be unpacked to $site"

# It also leaves the bytecode of what is imported, which Spark's users may not write here.
PYTHONPATH='' PYTHONDONTWRITEBYTECODE='' "$TARGET/bin/python" - <<'PROGRAM'
import importlib
import platform
import sys

MODULES = (
    "numpy",
    "pandas",
    "pyarrow.csv",
    "pyarrow.parquet",
    "ai_edge_litert.interpreter",
    "PIL.Image",
    "pillow_heif",
    "simplejpeg",
    "filetype",
    "boto3",
    "s3transfer",
    "obstore.auth.boto3",
    "obstore.store",
    "dagster_pipes",
)
versions = [f"Python {platform.python_version()}"]
for name in MODULES:
    try:
        importlib.import_module(name)
    except Exception as error:
        sys.exit(f"fruits bootstrap: {name} cannot be imported: {error!r}")
    root = name.partition(".")[0]
    versions.append(f"{root} {getattr(sys.modules[root], '__version__', '')}".strip())
print("fruits bootstrap:", ", ".join(versions))
PROGRAM

echo "$sha256" > "$UNPACKED"
