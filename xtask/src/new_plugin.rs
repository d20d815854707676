//! `new-plugin KIND NAME [--language LANGUAGE] [--out DIR]`: starts a plugin from a template that compiles as it is.

use crate::{Context, Failure, process, stage};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub mod native;

/// What a plugin is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// A crate over `sdk/plugin`.
    Rust,
    /// C99 over `easytransfer_plugin.h`.
    C,
    /// C++17 over `easytransfer_plugin.hpp`.
    Cpp,
}

impl Language {
    /// The language of a word. Errors: an unknown one.
    pub fn of(word: &str) -> Result<Self, Failure> {
        match word {
            "rust" => Ok(Self::Rust),
            "c" => Ok(Self::C),
            "c++" | "cpp" => Ok(Self::Cpp),
            other => Err(Failure(format!(
                "new-plugin: no language `{other}`, known languages: rust, c, c++"
            ))),
        }
    }
}

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

const KINDS: [Kind; 7] = [
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
    kind!(
        "app",
        "app",
        r#""et.tensor/1", "et.param/1", "et.nn/1", "et.data/1", "et.tokenizer/1", "et.context/1", "et.net/1""#,
        "--app @name@"
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

/// Reads the options of the command, writes the plugin and prints what comes next. Errors: an unknown option, and as
/// for [`write()`].
pub fn run(context: &Context, kind: &str, name: &str, options: &[&str]) -> Result<(), Failure> {
    let (mut language, mut out) = (Language::Rust, None);
    for pair in options.chunks(2) {
        match *pair {
            ["--language", word] => language = Language::of(word)?,
            ["--out", folder] => out = Some(Path::new(folder)),
            _ => {
                return Err(Failure(format!(
                    "new-plugin: `{}`: expected --language LANGUAGE or --out DIR",
                    pair.join(" ")
                )));
            }
        }
    }
    let folder = write(context, kind, name, language, out)?;
    println!("written: {}", process::shown(context, &folder));
    let used = KINDS.iter().find(|known| known.word == kind).map_or("", |kind| kind.used);
    let used = used.replace("@name@", name);
    let (next, plugins) = match (language, out) {
        (Language::Rust, None) => (
            "edit src/lib.rs, then run `cargo test --release` there and `cargo xtask stage`, which puts it where programs find it",
            String::new(),
        ),
        (Language::Rust, Some(_)) => (
            "edit src/lib.rs, then run `cargo test --release` and `cargo build --profile plugin` there",
            format!("--plugins {} ", folder.display()),
        ),
        _ => (
            "edit the source, then run `make` there, and `easytransfer plugin check` on the .toml",
            format!("--plugins {} ", folder.display()),
        ),
    };
    println!("next: {next}\nuse:  easytransfer train {plugins}... {used}");
    Ok(())
}

/// Writes the plugin and answers with its folder. Errors: unknown kind, a kind without a template in the language, bad
/// name, a folder that exists.
pub fn write(
    context: &Context,
    kind: &str,
    name: &str,
    language: Language,
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
    if language != Language::Rust {
        return native::write(context, kind, name, language, out);
    }
    let id = format!("{}-{name}", kind.prefix);
    let folder = out.map_or_else(|| context.root.join("plugins").join(&id), Path::to_path_buf);
    refuse_existing(&folder)?;
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

fn refuse_existing(folder: &Path) -> Result<(), Failure> {
    if folder.exists() {
        return Err(Failure(format!("new-plugin: {} exists already", folder.display())));
    }
    Ok(())
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
        let context = Context::here();
        let all = |language, kinds: Vec<&'static str>| {
            kinds.into_iter().map(move |kind| (kind, language))
        };
        let plugins = all(Language::Rust, kinds().collect())
            .chain(all(Language::C, native::kinds().collect()))
            .chain(all(Language::Cpp, native::kinds().collect()));
        for (kind, language) in plugins {
            let folder = scratch(&format!("{kind}-{language:?}"));
            write(&context, kind, "my-own", language, Some(&folder)).unwrap();
            let prefix = KINDS.iter().find(|known| known.word == kind).unwrap().prefix;
            let manifest = format!("{prefix}-my-own.toml");
            let source = match language {
                Language::Rust => vec!["src/lib.rs".to_owned(), "Cargo.toml".to_owned()],
                Language::C => vec![format!("{kind}.c"), "README.md".to_owned()],
                Language::Cpp => vec![format!("{kind}.cpp"), "README.md".to_owned()],
            };
            for file in source.iter().chain([&manifest]) {
                let text = fs::read_to_string(folder.join(file)).unwrap();
                assert!(!text.contains('@'), "{file}: {text}");
                assert!(text.contains("my-own"), "{file}: {text}");
            }
            let again = write(&context, kind, "my-own", language, Some(&folder)).unwrap_err();
            assert!(again.0.contains("exists already"), "{again}");
            fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn new_plugin_bad_kind_language_and_name_are_errors() {
        let (context, folder) = (Context::here(), scratch("bad"));
        for (kind, name, language) in [
            ("banana", "a", Language::Rust),
            ("loss", "A", Language::C),
            ("loss", "a b", Language::Rust),
            ("loss", "-a", Language::Cpp),
            ("loss", "", Language::Rust),
            ("model", "a", Language::C),
        ] {
            assert!(write(&context, kind, name, language, Some(&folder)).is_err());
        }
        assert!(!folder.exists());
        for options in [&["--language"][..], &["--language", "cobol"], &["--where", "there"]] {
            assert!(run(&context, "loss", "a", options).is_err(), "{options:?}");
        }
    }
}
