"""Does not come to an end when it is imported."""

import time

time.sleep(10_000)
