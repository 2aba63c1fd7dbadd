"""Tables of a report, and their output as Markdown, CSV and LaTeX and to the terminal."""
