"""Training: the one engine, its callbacks, frozen features and the convex probe."""
