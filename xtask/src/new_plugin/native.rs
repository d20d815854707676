//! Plugins in C and C++: one source file, a manifest, a Makefile and a line on how to use them. They need a compiler
//! and the headers, and lie outside of the workspace.

use super::{Language, put, type_name};
use crate::{Context, Failure, stage};
use std::path::{Path, PathBuf};

/// The sources of a kind, and what of the host they need.
struct Native {
    kind: &'static str,
    requires: &'static str,
    c: &'static str,
    cpp: &'static str,
}

macro_rules! native {
    ($kind:literal, $requires:literal) => {
        Native {
            kind: $kind,
            requires: $requires,
            c: include_str!(concat!("../../templates/c/", $kind, ".c.in")),
            cpp: include_str!(concat!("../../templates/cpp/", $kind, ".cpp.in")),
        }
    };
}

// Those that the headers of C++ ask for are in all of them.
const NATIVES: [Native; 4] = [
    native!("loss", r#""et.tensor/1", "et.nn/1", "et.data/1", "et.config/1""#),
    native!("metric", r#""et.tensor/1", "et.data/1", "et.config/1", "et.stream/1""#),
    native!(
        "strategy",
        r#""et.tensor/1", "et.data/1", "et.config/1", "et.param/1", "et.session/1""#
    ),
    native!("op", r#""et.tensor/1", "et.data/1", "et.config/1""#),
];

const ENTRY: &str = include_str!("../../templates/c/entry.c.in");
const MAKEFILE: &str = include_str!("../../templates/Makefile.in");
const README: &str = include_str!("../../templates/README.md.in");

/// Words of the kinds that have templates in C and C++.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    NATIVES.iter().map(|native| native.kind)
}

/// Writes the plugin to `out`, or beside the workspace, and answers with its folder. Errors: a kind without such a
/// template, a folder that exists.
pub(super) fn write(
    context: &Context,
    kind: &super::Kind,
    name: &str,
    language: Language,
    out: Option<&Path>,
) -> Result<PathBuf, Failure> {
    let Some(native) = NATIVES.iter().find(|native| native.kind == kind.word) else {
        let known = kinds().collect::<Vec<_>>().join(", ");
        return Err(Failure(format!(
            "new-plugin: kind `{}` has a template in Rust alone; in C and C++: {known}",
            kind.word
        )));
    };
    let (extension, source, [variable, flags, standard]) = match language {
        Language::Cpp => ("cpp", native.cpp, ["CXX", "CXXFLAGS", "c++17"]),
        _ => ("c", native.c, ["CC", "CFLAGS", "c99"]),
    };
    let source_file = format!("{}.{extension}", kind.word);
    let id = format!("{}-{name}", kind.prefix);
    let folder = out.map_or_else(|| context.root.join("..").join(&id), Path::to_path_buf);
    super::refuse_existing(&folder)?;
    let library = stage::library_file_name(&id);
    let manifest_library = format!("\n[library]\n{} = \"{library}\"\n", stage::platform());
    let manifest = format!("{id}.toml");
    for (file, template) in [
        (source_file.as_str(), source),
        ("Makefile", MAKEFILE),
        (&manifest, super::MANIFEST),
        ("README.md", README),
    ] {
        let text = template
            .replace("@entry@\n", ENTRY)
            .replace("@used@", kind.used)
            .replace("@id@", &id)
            .replace("@kind@", kind.word)
            .replace("@requires@", native.requires)
            .replace("@name@", name)
            .replace("@Type@", &type_name(name))
            .replace("@TABLE@", &kind.word.to_uppercase())
            .replace("@include@", &context.root.join("include").display().to_string())
            .replace("@VAR@", variable)
            .replace("@FLAGS@", flags)
            .replace("@standard@", standard)
            .replace("@source@", &source_file)
            .replace("@version@", "version = \"0.1.0\"\n")
            .replace("@library@", if file == manifest { &manifest_library } else { &library });
        put(&folder.join(file), &text)?;
    }
    Ok(folder)
}
