"""Darwinism: similarity definitions forecast in shadow, and have to earn their say. sql/elections has the math."""
