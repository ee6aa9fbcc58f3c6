"""From `results.json` to a report that people read: HTML, Markdown and the terminal, in English and Spanish."""
