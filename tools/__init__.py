"""Programs for whoever changes the project: what they need is pinned here, apart from the project.

A tool's packages are in `<name>.in`, and with all that these pull in, and their hashes, in
`<name>.lock` (`make lock`).
"""
