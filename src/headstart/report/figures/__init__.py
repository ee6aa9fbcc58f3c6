"""The report's figures as SVG that follows the page's light or dark colours."""
