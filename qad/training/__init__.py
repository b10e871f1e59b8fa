"""Train a model on the grid."""
