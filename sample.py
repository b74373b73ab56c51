from diffulex_edge.cli.main import script

script("sample")
