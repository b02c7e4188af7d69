"""Generator against discriminator: what a GAN's training is, whatever its architecture."""
