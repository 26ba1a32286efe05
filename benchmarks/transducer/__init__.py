"""The transducer loss."""
