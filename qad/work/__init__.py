"""Units of work, and the engine that runs them."""
