//! Size, alignment, offsets and signatures: Rust and C agree, and a table only ever grows at its end.

use easytransfer_abi_tests::{
    Compiler, compile, compilers, golden, layouts, root, schema, scratch, tables,
};
use std::{collections::BTreeMap, fmt::Write, fs};

/// The golden text: per table a head line `NAME size SIZE align ALIGN`, then `OFFSET SIZE NAME: SIGNATURE` per field.
fn describe() -> String {
    let mut text = String::new();
    let tables = tables();
    for layout in layouts() {
        let table = tables.iter().find(|table| table.name == layout.name).unwrap();
        writeln!(text, "{} size {} align {}", layout.name, layout.size, layout.align).unwrap();
        for ((name, offset, size), field) in layout.fields.iter().zip(&table.fields) {
            writeln!(text, "  {offset} {size} {name}: {}", field.signature).unwrap();
        }
    }
    text
}

/// Lines of each table: the alignment, then one per field. The size may grow, so it is not a line.
fn by_table(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut tables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(field) = line.strip_prefix("  ") {
            tables.entry(name).or_default().push(field);
        } else {
            let mut words = line.split(' ');
            name = words.next().unwrap();
            tables.entry(name).or_default().push(words.next_back().unwrap());
        }
    }
    tables
}

/// Structs that are passed by value, so that even their size is fixed.
const BY_VALUE: [&str; 3] = ["et_str", "et_rng_state", "et_init"];

/// What a change of the layout breaks, as text; empty when every old table is a prefix of the new one.
fn broken(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (by_table(old), by_table(new));
    let mut errors = Vec::new();
    for (name, old) in old {
        let Some(new) = new.get(name) else {
            errors.push(format!("{name} was removed"));
            continue;
        };
        for (index, line) in old.iter().enumerate() {
            match new.get(index) {
                Some(present) if present == line => {}
                Some(present) => errors.push(format!("{name}: was `{line}`, is `{present}`")),
                None => errors.push(format!("{name}: `{line}` was removed")),
            }
        }
        if BY_VALUE.contains(&name) && old.len() != new.len() {
            errors.push(format!("{name} is passed by value and may not grow"));
        }
    }
    errors
}

#[test]
fn layout_old_tables_are_prefixes_of_the_new_ones() {
    let new = describe();
    let old = golden("layout.txt", &new);
    let errors = broken(&old, &new);
    assert!(
        errors.is_empty(),
        "the boundary broke for plugins that exist (append slots, or make a new interface id):\n{}",
        errors.join("\n")
    );
    assert_eq!(old, new, "slots were added: run with ET_BLESS=1, and raise ET_ABI_MINOR");
}

#[test]
fn layout_rule_rejects_changes_and_accepts_appended_fields() {
    let old = "et_a size 16 align 8\n  0 8 struct_size: usize\n  8 8 f: fn(i32)\n";
    let appended =
        "et_a size 24 align 8\n  0 8 struct_size: usize\n  8 8 f: fn(i32)\n  16 8 g: fn()\n";
    let retyped = old.replace("fn(i32)", "fn(i64)");
    let reordered = "et_a size 16 align 8\n  0 8 f: fn(i32)\n  8 8 struct_size: usize\n";
    assert!(broken(old, appended).is_empty());
    assert_eq!(broken(old, &retyped).len(), 1);
    assert_eq!(broken(old, reordered).len(), 2);
    assert_eq!(broken(appended, old).len(), 1);
    assert_eq!(broken(old, "").len(), 1);
}

#[test]
fn layout_c_and_cpp_compilers_agree_with_rust() {
    let mut checks = String::new();
    for layout in layouts() {
        let name = layout.name;
        writeln!(checks, "CHECK(sizeof({name}) == {}, \"size of {name}\");", layout.size).unwrap();
        writeln!(checks, "CHECK(ALIGN({name}) == {}, \"alignment of {name}\");", layout.align)
            .unwrap();
        for (field, offset, size) in layout.fields {
            writeln!(checks, "CHECK(offsetof({name}, {field}) == {offset} && FIELD({name}, {field}) == {size}, \"{name}.{field}\");").unwrap();
        }
    }
    let folder = scratch("asserts");
    let write = |name: &str, macros: &str, checks: &str| {
        let file = folder.join(name);
        let text = format!("#include \"easytransfer_plugin.h\"\n{macros}\n{checks}");
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let c_macros = "#define CHECK _Static_assert\n#define ALIGN _Alignof\n#define FIELD(type, field) sizeof(((type *)0)->field)";
    let cpp_macros = "#define CHECK static_assert\n#define ALIGN alignof\n#define FIELD(type, field) sizeof(type::field)";
    let c_file = write("asserts.c", c_macros, &checks);
    let cpp_file = write("asserts.cpp", cpp_macros, &checks);
    let wrong = write("wrong.c", c_macros, "CHECK(sizeof(et_str) == 3, \"size of et_str\");\n");
    for Compiler { c, cpp } in compilers() {
        compile(c, &["-std=c11", "-fsyntax-only", &c_file]).unwrap();
        compile(cpp, &["-std=c++11", "-fsyntax-only", &cpp_file]).unwrap();
        assert!(compile(c, &["-std=c11", "-fsyntax-only", &wrong]).is_err());
    }
}

#[test]
fn layout_golden_covers_every_struct_of_the_header() {
    let header = fs::read_to_string(root().join("include/easytransfer_plugin.h")).unwrap();
    let mut in_header: Vec<&str> = header
        .lines()
        .filter_map(|line| line.strip_prefix("typedef struct ")?.strip_suffix(" {"))
        .collect();
    let mut in_rust: Vec<&str> = layouts().iter().map(|layout| layout.name).collect();
    in_header.sort_unstable();
    in_rust.sort_unstable();
    assert_eq!(in_header, in_rust);
}

#[test]
fn layout_every_table_starts_with_struct_size() {
    // Passed by value, or frozen by another rule: the records' first fields are fixed for all time.
    let others =
        [&BY_VALUE[..], &["et_plugin_record", "et_engine_record", "et_group_record"]].concat();
    for table in tables().iter().filter(|table| !others.contains(&table.name.as_str())) {
        assert_eq!(table.fields[0].name, "struct_size", "{}", table.name);
        assert_eq!(table.fields[0].signature, "usize", "{}", table.name);
    }
}

#[test]
fn layout_every_function_pointer_is_optional_and_extern_c() {
    // The header generator turns anything else into a C declaration that looks right and is not.
    for table in tables() {
        for field in table.fields.iter().filter(|field| field.is_slot()) {
            assert!(
                field.signature.starts_with("Option<unsafe extern \"C\" fn("),
                "{}.{}: {}",
                table.name,
                field.name,
                field.signature
            );
        }
    }
}

#[test]
fn schema_reads_multi_line_fields_and_skips_opaque_types() {
    let source = "/// A.\npub struct et_o {\n    _opaque: [u8; 0],\n}\n/// T.\n#[repr(C)]\npub struct et_t {\n    /// F.\n    /// [any-thread] since 0.1\n    pub f: Option<\n        unsafe extern \"C\" fn(\n            a: i32,\n        ) -> i32,\n    >,\n}\n";
    let tables = schema::parse(source);
    assert_eq!(tables.len(), 1);
    assert_eq!(tables[0].doc, "T.");
    let field = &tables[0].fields[0];
    assert_eq!((field.name.as_str(), field.doc.as_str()), ("f", "F. [any-thread] since 0.1"));
    assert_eq!(field.signature, "Option<unsafe extern \"C\" fn(a: i32) -> i32>");
}
