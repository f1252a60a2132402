"""MMGuard: protecting image-text data from unauthorised fine-tuning (arXiv 2605.14291), as a library.

`mmguard.protect` has Algorithm 1; `objective`, `attention`, `image` and `trigger` its formulas by number.
"""
