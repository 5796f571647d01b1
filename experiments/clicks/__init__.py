"""Criteo's clicks: from raw rows to columns of ids, and batches of them.

conversion.convert      raw files -> a folder of columns, once          columns.Columns      opens the folder
batches.Batches         columns -> shuffled batches                     synthetic.write_raw  rows in the raw format
"""
