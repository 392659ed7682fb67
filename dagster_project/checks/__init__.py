"""The checks, by what they look at: what a site has staged, and what all sites have sent."""
