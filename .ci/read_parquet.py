"""Reads Parquet files with pyarrow, an implementation that shares nothing with the one that wrote them.

Prints the columns of each file as one JSON list, then each row as a JSON object, for the test
`another_implementation_reads_the_same_rows` to judge.
"""

import json
import sys

import pyarrow.parquet

for path in sys.argv[1:]:
    table = pyarrow.parquet.read_table(path)
    print(json.dumps([[field.name, str(field.type), field.nullable] for field in table.schema]))
    for row in table.to_pylist():
        print(json.dumps(row))
