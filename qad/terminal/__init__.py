"""What a person sees: console, progress, log."""
