"""Four nodes train a classifier of handwritten digits, each on its own samples; settings travel, samples never do.

python -m pipelines.training [--seeds 20]

After each epoch a node deposits what the epoch changed with Node.step, gets what the others have, and where a similar
node stands better by more than the standard error, it goes on with that one's settings, times or over 1.25: the
exploit and explore of population based training (Jaderberg et al. 2017, arXiv:1711.09846), without the weights.
"""
