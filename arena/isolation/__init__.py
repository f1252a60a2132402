"""Running code of plugins in processes of their own, behind a firewall of the kernel where it has one.

`call` runs a function in a process that is forked from a server without a plugin in it, is handed folders, and is ended
with all that it started; `landlock` is the firewall.
"""
