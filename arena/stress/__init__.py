"""A protection held against requirements: `arena stress`, its reports, and the plugin of pytest."""
