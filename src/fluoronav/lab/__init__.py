"""Where the product is tried and measured: the simulated operating room, the demo and the benches."""
