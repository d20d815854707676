//! The headers compile alone, twice, in every dialect, and in two objects of one program.

use easytransfer_abi_tests::{Compiler, compile, compilers, root, run, scratch};
use std::{fs, process::Command};

const C: [&str; 4] = ["c90", "c99", "c11", "c17"];
const CPP: [&str; 4] = ["c++11", "c++14", "c++17", "c++20"];
const HEADERS: [&str; 2] = ["easytransfer_plugin.h", "easytransfer.h"];

/// Every compiler with every dialect: program, `-std` flag, file extension.
fn matrix() -> Vec<(&'static str, String, &'static str)> {
    let each = |Compiler { c, cpp }: Compiler| {
        let c = C.map(|standard| (c, format!("-std={standard}"), "c"));
        c.into_iter().chain(CPP.map(|standard| (cpp, format!("-std={standard}"), "cpp")))
    };
    compilers().into_iter().flat_map(each).collect()
}

#[test]
fn header_alone_and_twice_compiles_in_every_dialect() {
    let folder = scratch("alone");
    for header in HEADERS {
        let text = format!("#include \"{header}\"\n#include \"{header}\"\n");
        for (program, standard, extension) in matrix() {
            let file = folder.join(format!("alone.{extension}"));
            fs::write(&file, &text).unwrap();
            let file = file.to_str().unwrap();
            compile(program, &[&standard, "-fsyntax-only", file])
                .unwrap_or_else(|error| panic!("{header}: {error}"));
        }
    }
}

#[test]
fn cpp_wrappers_alone_and_twice_compile_from_cpp17() {
    let folder = scratch("wrapper");
    let entries = fs::read_dir(root().join("include")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let wrappers: Vec<String> = names.filter(|name| name.ends_with(".hpp")).collect();
    assert!(wrappers.len() >= 5, "{wrappers:?}");
    for header in wrappers {
        let file = folder.join("wrapper.cpp");
        fs::write(&file, format!("#include \"{header}\"\n#include \"{header}\"\n")).unwrap();
        for Compiler { cpp, .. } in compilers() {
            for standard in ["-std=c++17", "-std=c++20"] {
                compile(cpp, &[standard, "-fsyntax-only", file.to_str().unwrap()])
                    .unwrap_or_else(|error| panic!("{header}: {error}"));
            }
        }
    }
}

#[test]
fn header_in_two_objects_links_into_one_program() {
    let folder = scratch("two-objects");
    for header in HEADERS {
        let other = format!(
            "#include \"{header}\"\nint other(void);\nint other(void) {{ return ET_ERR_SHAPE; }}\n"
        );
        let main = format!(
            "#include \"{header}\"\n#ifdef __cplusplus\nint other();\n#else\nint other(void);\n#endif\nint main(void) {{ return other() == ET_ERR_SHAPE ? 0 : 1; }}\n"
        );
        for (program, standard, extension) in matrix() {
            let files = [("main", &main), ("other", &other)].map(|(name, text)| {
                let file = folder.join(format!("{name}.{extension}"));
                fs::write(&file, text).unwrap();
                file.to_str().unwrap().to_owned()
            });
            let binary = folder.join("program");
            compile(program, &[&standard, &files[0], &files[1], "-o", binary.to_str().unwrap()])
                .unwrap_or_else(|error| panic!("{header}: {error}"));
            run(&mut Command::new(&binary)).unwrap();
        }
    }
}

#[test]
fn header_example_compiles_as_a_plugin_with_one_symbol() {
    let header = fs::read_to_string(root().join("include/easytransfer_plugin.h")).unwrap();
    let example: Vec<&str> = header
        .lines()
        .skip_while(|line| !line.contains("cc -shared"))
        .skip(1)
        .filter_map(|line| line.strip_prefix(" *   "))
        .collect();
    assert!(example.len() > 20, "the example in the header's first comment was not found");
    let folder = scratch("example");
    let (file, library) = (folder.join("loss.c"), folder.join("libloss-mine.so"));
    fs::write(&file, format!("#include <string.h>\n{}\n", example.join("\n"))).unwrap();
    for Compiler { c, .. } in compilers() {
        let arguments = ["-std=c99", "-shared", "-fPIC", "-O2", file.to_str().unwrap(), "-o"];
        compile(c, &[&arguments[..], &[library.to_str().unwrap()]].concat()).unwrap();
        let symbols = easytransfer_abi_tests::exported(&library);
        assert_eq!(symbols, ["et_plugin_entry"]);
    }
}

#[test]
fn header_version_is_the_version_of_the_workspace() {
    let folder = scratch("version");
    let (file, binary) = (folder.join("version.c"), folder.join("version"));
    let text = "#include \"easytransfer_plugin.h\"\n#include <stdio.h>\nint main(void) {\n  printf(\"%s %d.%d.%d\", ET_VERSION, ET_VERSION_MAJOR, ET_VERSION_MINOR, ET_VERSION_PATCH);\n  return 0;\n}\n";
    fs::write(&file, text).unwrap();
    let program = compilers()[0].c;
    compile(program, &[file.to_str().unwrap(), "-o", binary.to_str().unwrap()]).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(run(&mut Command::new(binary)).unwrap(), format!("{version} {version}"));
}
