"""A trained ProGAN as a generator."""

from stages.generators.adversarial import AdversarialGenerator, load, untrained

__all__ = ["AdversarialGenerator", "load", "untrained"]
