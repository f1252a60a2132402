"""The diffusion model that comes with `diffpure`, and how it was trained."""
