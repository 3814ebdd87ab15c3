"""What was measured: reading it, holding the model against it, fitting the model to it."""
