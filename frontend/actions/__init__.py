"""The actions of the frontend, a file each, named like its action."""
