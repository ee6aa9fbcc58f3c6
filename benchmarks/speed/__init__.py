"""headstart against its peers: `python -m benchmarks.speed.run` measures, `python -m benchmarks.speed.table` writes the page."""
