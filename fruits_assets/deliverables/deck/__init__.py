"""The slide deck: its theme, its texts in two languages, and a function per slide.

Every figure comes from the lake, from the run or from the benchmark's file (`facts.Facts`); what is
missing is said to be missing. No Dagster.
"""
