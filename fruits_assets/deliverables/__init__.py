"""Everything that people see of a run: figures, a notebook and a slide deck."""
