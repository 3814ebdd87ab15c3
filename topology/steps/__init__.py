"""Steps of training or decoding: collectives with compute between them, overlapped or not."""
