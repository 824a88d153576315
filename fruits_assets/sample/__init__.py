"""The embedded sample: how its photos are drawn, and the weights trained on such photos."""
