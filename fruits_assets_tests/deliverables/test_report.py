"""The report on a source, as the UI and a terminal show it."""

from typing import Any

from fruits_assets.deliverables.report import as_lines, as_markdown, of_lake
from fruits_assets.sources.survey import Section
from fruits_assets_tests.conftest import Pipeline


def test_the_report_of_a_run_is_that_of_its_tables(finished: tuple[Pipeline, Any]) -> None:
    pipeline, result = finished
    found = {it.title: it for it in of_lake(pipeline.lake.current("raw_images"))}
    assert found["Files"].rows[0][:3] == ("JPEG", "accepted", 90)
    assert [row[:3] for row in found["Splits"].rows] == [("Test", 30, 15), ("Training", 60, 15)]
    assert "Odd" not in found
    shown = [
        event.step_materialization_data.materialization.metadata
        for event in result.all_events
        if event.is_step_materialization
    ]
    (report,) = [metadata["report"].value for metadata in shown if "report" in metadata]
    assert report == as_markdown(list(found.values()))


HOSTILE = Section("Files", ("file", "bytes"), [("[a](http://b) | <b>\x1b[31m", 1_000_000)])


def test_names_of_strangers_are_shown_as_they_are() -> None:
    assert as_markdown([HOSTILE]).splitlines() == [
        *("### Files", "", "| file | bytes |", "| --- | ---: |"),
        "| \\[a\\]\\(http\\://b\\) \\| &lt;b&gt;\ufffd\\[31m | 1,000,000 |",
    ]
    assert list(as_lines([HOSTILE])) == [
        *("", "Files", "  file                          bytes"),
        "  [a](http://b) | <b>\ufffd[31m  1,000,000",
    ]
