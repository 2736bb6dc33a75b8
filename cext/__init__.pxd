# A package to Cython: `from nfmailguard.cext cimport NAME`. Every folder below has a file of this name.
