"""The full-screen review: look through candidates and label them by keyboard."""
