"""Images that kill, hang or starve their decoder: found, rejected, told; and the run goes on."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from fruits_assets_tests.conftest import REPOSITORY, Pipeline

pytestmark = pytest.mark.slow

SITE = textwrap.dedent("""
    # Imported by every Python process that starts with this folder on its path: a library that
    # fails on pictures of some sizes, once they are decoded (97, 98, 99), or once they are resized.
    import os, signal, sys, time

    if "fruits_assets.core.decoder" in sys.orig_argv:
        from PIL import Image, ImageFile

        load, resize = ImageFile.ImageFile.load, Image.Image.resize

        def fail(width):
            if width == 97:
                os.kill(os.getpid(), signal.SIGSEGV)
            if width == 98:
                time.sleep(1000)
            if width == 99:
                bytearray(2**36)

        def loaded(self, *args, **kwargs):
            fail(self.size[0] if self.size[1] == 61 else 0)
            return load(self, *args, **kwargs)

        def resized(self, *args, **kwargs):
            if self.size[1] == 62 and args[0] != (96, 97):
                fail(self.size[0])
            return resize(self, *args, **kwargs)

        ImageFile.ImageFile.load, Image.Image.resize = loaded, resized
""")


def _poison(folder: Path, height: int) -> None:
    folder.mkdir(parents=True)
    for width in (97, 98, 99, 100):
        # PNG: a JPEG is decoded at another size when it is only examined.
        Image.new("RGB", (width, height), (width, 2 * width - 100, 0)).save(folder / f"{width}.png")


def _run(own: Pipeline, site: Path) -> str:
    """A run in a process of its own, whose decoders are as bad as `SITE` makes them."""
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    script = textwrap.dedent(f"""
        from pathlib import Path
        from fruits_assets.checks import CHECKS
        from fruits_assets.lake.lake import Lake
        from fruits_assets_tests.conftest import Pipeline
        pipeline = Pipeline(Lake.at({own.lake.base!r}), Path({str(own.source)!r}), checks=CHECKS)
        limits = {{"max_seconds": 4.0}}
        config = {{"ingest": {{"max_rejected": 1.0, **limits}}, "features": limits}}
        assert pipeline.run("raw_images", "rejected_images", "features", config=config).success
    """)
    environment = {**os.environ, "PYTHONPATH": f"{site}:{REPOSITORY}"}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stderr


@pytest.fixture
def own(pipeline: Pipeline, tmp_path: Path) -> Pipeline:
    """A source with pictures that are fatal when they are examined, and others later."""
    _poison(tmp_path / "photos" / "examined", 61)
    _poison(tmp_path / "photos" / "resized", 62)
    return Pipeline(pipeline.lake, tmp_path / "photos")


def test_poison_is_rejected_and_the_run_goes_on(own: Pipeline, tmp_path: Path):
    told = _run(own, tmp_path / "site")
    rejected = own.lake.current("rejected_images").arrow(["path", "reason", "detail"]).to_pylist()
    assert {row["path"]: row["reason"] for row in rejected} == {
        "examined/97.png": "unreadable",
        "examined/98.png": "unreadable",
        "examined/99.png": "too_large",
    }
    details = {row["path"]: row["detail"] for row in rejected}
    assert "SIGSEGV" in details["examined/97.png"]
    assert "not decoded within 4 seconds" in details["examined/98.png"]
    features = own.lake.current("features")
    assert set(features.arrow(["path"])["path"].to_pylist()) == {
        "examined/100.png",
        "resized/100.png",
    }
    unreadable = own.lake.current("unreadable_photos").arrow(["path", "sha256", "detail"])
    assert {row["path"] for row in unreadable.to_pylist()} == {
        f"resized/{n}.png" for n in (97, 98, 99)
    }
    assert all(row["sha256"] and row["detail"] for row in unreadable.to_pylist())
    assert features.siblings["unreadable_photos"].rows == features.figures["unreadable"] == 3
    assert "3 photo(s) without features" in told
