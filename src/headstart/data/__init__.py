"""Images in: where they come from, how they are decoded, kept, divided, described and handed to a network."""
