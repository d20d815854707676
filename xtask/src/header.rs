//! `header`: writes `include/easytransfer_plugin.h` from `sdk/abi` and `include/easytransfer.h` from `capi`.
//!
//! The generator's own guard and `extern "C"` handling breaks `-std=c90 -pedantic`, so both are written here,
//! with the closing brace inside the guard.

use crate::{Context, Failure, diff};
use cbindgen::{
    Bindings, Builder, Config, DocumentationStyle, ItemType, Language, Layout, LayoutConfig,
    MacroExpansionConfig, SortKey, Style,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const OPEN_CPP: &str = "#ifdef __cplusplus\nextern \"C\" {\n#endif\n";
const CLOSE_CPP: &str = "#ifdef __cplusplus\n}\n#endif\n";

/// A header that is generated: where it belongs and what it must contain.
pub struct Header {
    /// Path in the tree.
    pub path: PathBuf,
    /// Text that the sources give today.
    pub text: String,
}

/// Writes both headers, or with `verify` fails with a difference when one is out of date.
pub fn run(context: &Context, verify: bool) -> Result<(), Failure> {
    let mut stale = Vec::new();
    for header in generate(&context.root)? {
        let name = header.path.strip_prefix(&context.root).unwrap_or(&header.path).display();
        let present = fs::read_to_string(&header.path).unwrap_or_default();
        if present == header.text {
            println!("{name}: up to date");
        } else if verify {
            println!("{}", diff::lines(&present, &header.text));
            stale.push(name.to_string());
        } else {
            fs::write(&header.path, &header.text)
                .map_err(|error| Failure(format!("write {name}: {error}")))?;
            println!("{name}: written");
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    Err(Failure(format!(
        "{} out of date with the Rust sources (difference above), run `cargo xtask header`",
        stale.join(" and ")
    )))
}

/// What both headers must contain, from the sources under `root`.
pub fn generate(root: &Path) -> Result<Vec<Header>, Failure> {
    let abi = bindings(&root.join("sdk/abi/src"), true)?;
    let capi = bindings(&root.join("capi/src"), false)?;
    let macros = include_str!("header/plugin_macros.txt").replace("@VERSION@", &version_macros());
    let plugin = format!(
        "{}\n#include <stddef.h>\n#include <stdint.h>\n\n{macros}\n{OPEN_CPP}\n{}\n{}\n{CLOSE_CPP}\n#endif /* EASYTRANSFER_PLUGIN_H */\n",
        include_str!("header/plugin_top.txt"),
        abi.trim(),
        ENTRY,
    );
    let host = format!(
        "{}\n#include \"easytransfer_plugin.h\"\n\n{OPEN_CPP}\n{}\n\n{CLOSE_CPP}\n#endif /* EASYTRANSFER_H */\n",
        include_str!("header/host_top.txt"),
        capi.trim(),
    );
    Ok(vec![
        Header { path: root.join("include/easytransfer_plugin.h"), text: plugin },
        Header { path: root.join("include/easytransfer.h"), text: host },
    ])
}

const ENTRY: &str = "
/**
 * The one symbol that a plugin exports. Returns a record that lives until the process ends; does
 * nothing else. [any-thread] since 0.1
 */
ET_EXPORT const et_plugin_record *et_plugin_entry(void);
";

/// The version of the workspace as macros; it comes from Cargo's metadata and is written nowhere else.
fn version_macros() -> String {
    format!(
        "#define ET_VERSION_MAJOR {}\n#define ET_VERSION_MINOR {}\n#define ET_VERSION_PATCH {}\n#define ET_VERSION \"{}\"",
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
        env!("CARGO_PKG_VERSION"),
    )
}

/// The C declarations of all public items of a source folder. `types` is true for the crate that defines them; the
/// other one refers to them by name.
fn bindings(folder: &Path, types: bool) -> Result<String, Failure> {
    let files = sources(folder)?;
    if files.is_empty() {
        return Err(Failure(format!("read {}: no Rust source found", folder.display())));
    }
    let mut config = config();
    if types {
        config.export.item_types =
            vec![ItemType::Constants, ItemType::Structs, ItemType::OpaqueItems];
        // No function refers to the tables, so each is asked for by name.
        for file in &files {
            let text = fs::read_to_string(file)
                .map_err(|error| Failure(format!("read {}: {error}", file.display())))?;
            config.export.include.extend(text.lines().filter_map(struct_name).map(str::to_owned));
        }
    }
    let mut builder = Builder::new().with_config(config);
    // The generator follows the modules that `lib.rs` declares, so each function of capi would come twice.
    let root = folder.join("lib.rs");
    let files = if types || !files.contains(&root) { files } else { vec![root] };
    for file in files {
        builder = builder.with_src(file);
    }
    let bindings: Bindings = builder
        .generate()
        .map_err(|error| Failure(format!("read {}: {error}", folder.display())))?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text)
        .map_err(|error| Failure(format!("header of {}: {error}", folder.display())))
}

fn config() -> Config {
    let mut config = Config {
        language: Language::C,
        // Guards, includes and `extern "C"` are ours.
        no_includes: true,
        cpp_compat: false,
        style: Style::Both,
        sort_by: SortKey::None,
        usize_is_size_t: true,
        line_length: 100,
        tab_width: 2,
        documentation: true,
        documentation_style: DocumentationStyle::Doxy,
        macro_expansion: MacroExpansionConfig::default(),
        layout: LayoutConfig::default(),
        ..Config::default()
    };
    config.function.args = Layout::Auto;
    config
}

/// The name in a line `pub struct NAME {`.
fn struct_name(line: &str) -> Option<&str> {
    line.strip_prefix("pub struct ")?.split([' ', '{', ';', '<', '(']).next()
}

/// The Rust files under `folder`, sorted by path so that the output does not depend on the file system.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .map_err(|error| Failure(format!("read {}: {error}", folder.display())))?;
        for entry in entries {
            let path = entry
                .map_err(|error| Failure(format!("read {}: {error}", folder.display())))?
                .path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
