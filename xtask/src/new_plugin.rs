//! `new-plugin KIND NAME [--out DIR]`: starts a plugin from a template that compiles as it is.

use crate::{Context, Failure, process, stage};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A kind of plugin with a template: the word, the start of ids, what of the host it needs, how a component is used,
/// and the source.
struct Kind {
    word: &'static str,
    prefix: &'static str,
    requires: &'static str,
    used: &'static str,
    source: &'static str,
    /// More files beside the source: path and content.
    files: &'static [(&'static str, &'static str)],
}

macro_rules! kind {
    ($word:literal, $prefix:literal, $requires:literal, $used:literal) => {
        kind!($word, $prefix, $requires, $used, [])
    };
    ($word:literal, $prefix:literal, $requires:literal, $used:literal, $files:expr) => {
        Kind {
            files: &$files,
            word: $word,
            prefix: $prefix,
            requires: $requires,
            used: $used,
            source: include_str!(concat!("../templates/", $word, ".rs.in")),
        }
    };
}

const KINDS: [Kind; 6] = [
    kind!("loss", "loss", r#""et.tensor/1", "et.nn/1", "et.data/1""#, "--set loss.name=@name@"),
    kind!(
        "model",
        "zoo",
        r#""et.tensor/1", "et.param/1", "et.nn/1", "et.data/1""#,
        "with \"model_type\": \"@name@\" in config.json of the --encoder"
    ),
    kind!(
        "optimizer",
        "optim",
        r#""et.tensor/1", "et.param/1", "et.data/1", "et.stream/1""#,
        "--set optimizer.name=@name@"
    ),
    kind!("metric", "metric", r#""et.tensor/1", "et.data/1""#, "with an app that asks for it"),
    kind!("strategy", "tl", r#""et.param/1", "et.session/1""#, "--set strategy.@name@={}"),
    kind!(
        "op",
        "op",
        r#""et.tensor/1", "et.autograd/1""#,
        "with a plugin that calls it",
        [("src/kernel.ptx", include_str!("../templates/op.ptx"))]
    ),
];

/// Words of the kinds that have a template.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.word)
}

const CARGO: &str = include_str!("../templates/Cargo.toml.in");
const MANIFEST: &str = include_str!("../templates/plugin.toml.in");

/// What the workspace would say, so that both share what is compiled in one target directory. The empty table keeps
/// Cargo from looking for one further up.
const OUTSIDE: &str = "
[lints.rust]
unexpected_cfgs = { level = \"warn\", check-cfg = [\"cfg(et_static)\"] }

[profile.release]
strip = \"symbols\"
codegen-units = 16
incremental = true

[profile.plugin]
inherits = \"release\"
opt-level = \"z\"
lto = \"fat\"
codegen-units = 4
incremental = false

[workspace]";

/// Writes the plugin and prints what comes next. Errors: unknown kind, bad name, a folder that exists.
pub fn run(context: &Context, kind: &str, name: &str, out: Option<&Path>) -> Result<(), Failure> {
    let folder = write(context, kind, name, out)?;
    println!("written: {}", process::shown(context, &folder));
    let used = KINDS.iter().find(|known| known.word == kind).map_or("", |kind| kind.used);
    let used = used.replace("@name@", name);
    match out {
        None => println!(
            "next: edit src/lib.rs, then run `cargo test --release` there and `cargo xtask stage`, which puts it where programs find it\n\
             use:  easytransfer train ... {used}"
        ),
        Some(_) => println!(
            "next: edit src/lib.rs, then run `cargo test --release` and `cargo build --profile plugin` there\n\
             use:  easytransfer train --plugins {} ... {used}",
            folder.display()
        ),
    }
    Ok(())
}

/// Writes the plugin and answers with its folder. Errors: as [`run`].
pub fn write(
    context: &Context,
    kind: &str,
    name: &str,
    out: Option<&Path>,
) -> Result<PathBuf, Failure> {
    let Some(kind) = KINDS.iter().find(|known| known.word == kind) else {
        let known = kinds().collect::<Vec<_>>().join(", ");
        return Err(Failure(format!("new-plugin: no kind `{kind}`, known kinds: {known}")));
    };
    let fits = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '-');
    if !name.starts_with(|first: char| first.is_ascii_lowercase())
        || !name.chars().all(fits)
        || name.ends_with('-')
    {
        return Err(Failure(format!(
            "new-plugin: name `{name}`: expected lower-case letters, digits and dashes, beginning with a letter"
        )));
    }
    let id = format!("{}-{name}", kind.prefix);
    let folder = out.map_or_else(|| context.root.join("plugins").join(&id), Path::to_path_buf);
    if folder.exists() {
        return Err(Failure(format!("new-plugin: {} exists already", folder.display())));
    }
    let inside = "workspace = true".to_owned();
    let (sdk, suite, workspace) = match out {
        None => (inside.clone(), inside, "\n[lints]\nworkspace = true"),
        Some(_) => {
            let path = |folder: &str| {
                format!("path = {:?}", context.root.join(folder).display().to_string())
            };
            (path("sdk/plugin"), path("sdk/conformance"), OUTSIDE)
        }
    };
    // In the tree `cargo xtask stage` makes the manifest complete; outside it must be so from the start, and be
    // called as programs expect.
    let (manifest_file, version, library) = match out {
        None => ("plugin.toml".to_owned(), "", String::new()),
        Some(_) => {
            let library = stage::library_file_name(&id);
            let platform = stage::platform();
            let library = format!("\n[library]\n{platform} = \"target/plugin/{library}\"\n");
            (format!("{id}.toml"), "version = \"0.1.0\"\n", library)
        }
    };
    for (file, template) in
        [("Cargo.toml", CARGO), (manifest_file.as_str(), MANIFEST), ("src/lib.rs", kind.source)]
    {
        let text = template
            .replace("@id@", &id)
            .replace("@kind@", kind.word)
            .replace("@requires@", kind.requires)
            .replace("@name@", name)
            .replace("@Type@", &type_name(name))
            .replace("@crate@", &id.replace('-', "_"))
            .replace("@sdk@", &sdk)
            .replace("@suite@", &suite)
            .replace("@workspace@", workspace)
            .replace("@version@", version)
            .replace("@library@", &library);
        let path = folder.join(file);
        put(&path, &text)?;
    }
    // As they are: PTX has placeholders of its own.
    for (file, text) in kind.files {
        put(&folder.join(file), text)?;
    }
    Ok(folder)
}

fn put(path: &Path, text: &str) -> Result<(), Failure> {
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| Failure(format!("write {}: {error}", path.display())))
}

/// "my-loss" as `MyLoss`.
fn type_name(name: &str) -> String {
    let capitalised = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
    };
    name.split('-').map(capitalised).collect::<Vec<String>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn new_plugin_fills_every_placeholder_and_keeps_what_exists() {
        for kind in KINDS {
            let folder = scratch(kind.word);
            write(&Context::here(), kind.word, "my-own", Some(&folder)).unwrap();
            let manifest = format!("{}-my-own.toml", kind.prefix);
            for file in ["Cargo.toml", &manifest, "src/lib.rs"] {
                let text = fs::read_to_string(folder.join(file)).unwrap();
                assert!(!text.contains('@'), "{file}: {text}");
                assert!(text.contains("my-own"), "{file}: {text}");
            }
            let again = write(&Context::here(), kind.word, "my-own", Some(&folder)).unwrap_err();
            assert!(again.0.contains("exists already"), "{again}");
            fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn new_plugin_bad_kind_and_bad_name_are_errors() {
        let folder = scratch("bad");
        for (kind, name) in
            [("banana", "a"), ("loss", "A"), ("loss", "a b"), ("loss", "-a"), ("loss", "")]
        {
            assert!(write(&Context::here(), kind, name, Some(&folder)).is_err());
        }
        assert!(!folder.exists());
    }
}
