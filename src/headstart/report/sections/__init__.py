"""The report's sections, one file each, in the order in which a reader meets them."""
