"""Damaged files by the thousand: each must end in StreamError or in an image of its size.

    python -m tests.fuzz --cases 100000 [--seed 0] [--models Hyperprior ...] [--out FILE]

Real files of each model, as trained (the checkpoint of its lowest lambda), are damaged in the ways
of `damage.MUTATIONS`, half of them with the checksum made right again, so that the damage reaches
the decoder. Any other exception (also those that do not derive from Exception, as a native
library's panics) and an image of another size are failures, printed with the file and the seed that
reproduce them. A case that does not end, or memory that grows, ends the run. With --out, the counts
of each model are written as a CSV, such as statistics/fuzz.csv of the report.
"""
