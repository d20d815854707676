//! Plugins in C and C++: one source file, a manifest, a Makefile and a line on how to use them. They need a compiler
//! and the headers, and lie outside of the workspace.

use crate::{Kind, Language, MANIFEST, NewPlugin, Sdk, library_file_name, platform};
use std::path::Path;

/// The sources of a kind, and what of the host they need.
pub(crate) struct Native {
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
            c: include_str!(concat!("../templates/c/", $kind, ".c.in")),
            cpp: include_str!(concat!("../templates/cpp/", $kind, ".cpp.in")),
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

const ENTRY: &str = include_str!("../templates/c/entry.c.in");
const MAKEFILE: &str = include_str!("../templates/Makefile.in");
const README: &str = include_str!("../templates/README.md.in");

/// Words of the kinds that have templates in C and C++.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    NATIVES.iter().map(|native| native.kind)
}

/// The sources of a kind. Errors: there are none.
pub(crate) fn of(kind: &Kind) -> Result<&'static Native, String> {
    NATIVES.iter().find(|native| native.kind == kind.word).ok_or_else(|| {
        let known = kinds().collect::<Vec<_>>().join(", ");
        format!("kind `{}` has a template in Rust alone; in C and C++: {known}", kind.word)
    })
}

/// Writes the plugin. Errors: a kind without such a template, a disk that fails.
pub(crate) fn write(plugin: &NewPlugin<'_>, sdk: &Sdk, folder: &Path) -> Result<(), String> {
    let native = of(plugin.kind)?;
    let (extension, source, [variable, flags, standard]) = match plugin.language {
        Language::Cpp => ("cpp", native.cpp, ["CXX", "CXXFLAGS", "c++17"]),
        _ => ("c", native.c, ["CC", "CFLAGS", "c99"]),
    };
    let source_file = format!("{}.{extension}", plugin.kind.word);
    let library = library_file_name(&plugin.id());
    let entry = format!("\n[library]\n{} = \"{library}\"\n", platform());
    let manifest = format!("{}.toml", plugin.id());
    for (file, template) in [
        (source_file.as_str(), source),
        ("Makefile", MAKEFILE),
        (&manifest, MANIFEST),
        ("README.md", README),
    ] {
        let values = [
            ("@entry@\n", ENTRY.to_owned()),
            ("@requires@", native.requires.to_owned()),
            ("@TABLE@", plugin.kind.word.to_uppercase()),
            ("@include@", sdk.include.display().to_string()),
            ("@command@", sdk.command.display().to_string()),
            ("@VAR@", variable.to_owned()),
            ("@FLAGS@", flags.to_owned()),
            ("@standard@", standard.to_owned()),
            ("@source@", source_file.clone()),
            ("@version@", "version = \"0.1.0\"\n".to_owned()),
            ("@library@", if file == manifest { entry.clone() } else { library.clone() }),
        ];
        plugin.put(folder, file, template, &values)?;
    }
    Ok(())
}
