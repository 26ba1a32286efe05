"""What recognisers of images share: characters, files, layers, checkpoints, results."""
