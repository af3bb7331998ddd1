"""Result rows -> the table of an experiment, as Markdown, CSV or LaTeX."""
