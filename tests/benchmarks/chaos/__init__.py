"""Storms: everything goes wrong at random; in the end all jobs and permits must be accounted for.

`calls` is what is called, `books` who keeps account, `troubles` what goes wrong, `callers` who wants something,
`remains` what is left behind, `storm` the run itself, `report` what it says.
"""
