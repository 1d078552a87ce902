"""No file imports itself by way of others, not even inside a function or for types only: arrows have one direction."""

import grimp


def test_no_files_of_the_package_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("whimbrel")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while leaves := [module for module, others in imports.items() if not others & imports.keys()]:
        for module in leaves:
            del imports[module]
    assert not imports, f"a circle leads through some of {sorted(imports)}"
