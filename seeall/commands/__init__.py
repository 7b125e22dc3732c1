"""The commands of `ssl`, a file for each kind. They import no torch until one runs."""
