"""For authors of plugins: a package to start from (`arena new`) and the conformance kit (`arena check`)."""
