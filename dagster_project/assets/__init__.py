"""The assets, by where the work is done: at the sites, or on what the sites have sent."""
