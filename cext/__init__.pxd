# Makes this folder a package for Cython (`from nfmailguard.cext cimport NAME`); every folder below has such a file.
