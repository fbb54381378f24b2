"""HTML reports and SVG charts of runs."""
