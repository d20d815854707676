//! Starts plugins from templates that compile as they are, pass `easytransfer plugin check`, and do something: for the
//! command (`easytransfer plugin new`) beside an unpacked package, and for `cargo xtask new-plugin` in the source tree.
//!
//! What it deliberately does not do: it builds nothing and knows no engine; templates are part of the program.
#![forbid(unsafe_code)]

use std::env::consts;
use std::fs;
use std::path::{Path, PathBuf};

mod native;

pub use native::kinds as native_kinds;

/// What a plugin is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// A crate over `easytransfer-plugin`.
    Rust,
    /// C99 over `easytransfer_plugin.h`.
    C,
    /// C++17 over `easytransfer_plugin.hpp`.
    Cpp,
}

impl Language {
    /// The language of a word. Errors: an unknown one.
    pub fn of(word: &str) -> Result<Self, String> {
        match word {
            "rust" => Ok(Self::Rust),
            "c" => Ok(Self::C),
            "c++" | "cpp" => Ok(Self::Cpp),
            other => Err(format!("no language `{other}`, known languages: rust, c, c++")),
        }
    }

    /// What a first build of a plugin takes, roughly.
    fn first_build(self) -> &'static str {
        match self {
            Self::Rust => {
                "about 40 seconds of a processor, for the SDK, serde and syn, which Cargo fetches once; later ones take 4"
            }
            Self::C => "less than a second",
            Self::Cpp => "about 3 seconds",
        }
    }
}

/// What plugins are made from: an unpacked package, or the source tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sdk {
    /// Folder of the crate `easytransfer-plugin`.
    pub plugin: PathBuf,
    /// Folder of the headers.
    pub include: PathBuf,
    /// The command that tries plugins.
    pub command: PathBuf,
}

/// Where a package has the sources of the SDK's crates, below its own folder.
pub const CRATES: &str = "share/easytransfer/crates";

impl Sdk {
    /// What lies beside the command: of the package to which it belongs (`bin/..`), or of the tree in which it was
    /// built. Errors: neither is there.
    pub fn beside(command: &Path) -> Result<Sdk, String> {
        let command = command
            .canonicalize()
            .map_err(|error| format!("cannot find the command {}: {error}", command.display()))?;
        let package = command.parent().and_then(Path::parent);
        let sdk =
            |plugin: PathBuf, include: PathBuf| Sdk { plugin, include, command: command.clone() };
        if let Some(package) = package {
            let found =
                sdk(package.join(CRATES).join("easytransfer-plugin"), package.join("include"));
            if found.is_there() {
                return Ok(found);
            }
        }
        let trees =
            command.ancestors().map(|tree| sdk(tree.join("sdk/plugin"), tree.join("include")));
        trees.into_iter().find(Sdk::is_there).ok_or_else(|| {
            format!(
                "expected {CRATES} and include in the folder above {}, found neither; unpack the whole package",
                command.parent().unwrap_or(Path::new("")).display()
            )
        })
    }

    fn is_there(&self) -> bool {
        self.plugin.join("Cargo.toml").exists()
            && self.include.join("easytransfer_plugin.h").exists()
    }
}

/// The platform tuple of manifests, for instance "linux_amd64".
pub fn platform() -> String {
    let arch = match consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}_{arch}", consts::OS)
}

/// File name of a plugin's library on this platform.
pub fn library_file_name(id: &str) -> String {
    format!("{}{}{}", consts::DLL_PREFIX, id.replace('-', "_"), consts::DLL_SUFFIX)
}

/// A kind of plugin with a template: the word, the start of ids, what of the host it needs, how a component is used,
/// and the source.
#[derive(Debug)]
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
    kind!("metric", "metric", r#""et.tensor/1", "et.data/1""#, "--metric @name@"),
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
const CHECK: &str = include_str!("../templates/check.rs.in");
const SUITE: &str = include_str!("../templates/suite.rs.in");
const MANIFEST: &str = include_str!("../templates/plugin.toml.in");

/// What a workspace would say. The empty table keeps Cargo from looking for one further up.
const OUTSIDE: &str = "
# The work of a plugin is done by the host, so size counts; most of it is the standard library and serde_json, of which
# the linker's optimisation leaves what is used.
[profile.release]
opt-level = \"z\"
lto = \"fat\"
codegen-units = 4
strip = \"symbols\"

[workspace]";

/// A plugin that is to be started.
#[derive(Clone, Copy, Debug)]
pub struct NewPlugin<'a> {
    kind: &'static Kind,
    name: &'a str,
    language: Language,
}

impl<'a> NewPlugin<'a> {
    /// Errors: an unknown kind, one without a template in the language, a bad name.
    pub fn new(kind: &str, name: &'a str, language: Language) -> Result<NewPlugin<'a>, String> {
        let Some(kind) = KINDS.iter().find(|known| known.word == kind) else {
            let known = kinds().collect::<Vec<_>>().join(", ");
            return Err(format!("no kind `{kind}`, known kinds: {known}"));
        };
        let fits = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '-');
        if !name.starts_with(|first: char| first.is_ascii_lowercase())
            || !name.chars().all(fits)
            || name.ends_with('-')
        {
            return Err(format!(
                "name `{name}`: expected lower-case letters, digits and dashes, beginning with a letter"
            ));
        }
        if language != Language::Rust {
            native::of(kind)?;
        }
        Ok(NewPlugin { kind, name, language })
    }

    /// The plugin's id, which is the usual name of its folder too.
    pub fn id(&self) -> String {
        format!("{}-{}", self.kind.prefix, self.name)
    }

    /// Writes the plugin to a folder. Errors: one that exists, a disk that fails.
    pub fn write(&self, sdk: &Sdk, folder: &Path) -> Result<(), String> {
        refuse_existing(folder)?;
        if self.language != Language::Rust {
            return native::write(self, sdk, folder);
        }
        let library = library_file_name(&self.id());
        let shown = |path: &Path| path.display().to_string();
        let values = [
            ("@sdk@", format!("path = {:?}", shown(&sdk.plugin))),
            ("@workspace@", OUTSIDE.to_owned()),
            ("@version@", "version = \"0.1.0\"\n".to_owned()),
            ("@command@", shown(&sdk.command)),
        ];
        let entry = ("@library@", format!("\n[library]\n{} = \"{library}\"\n", platform()));
        let manifest = format!("{}.toml", self.id());
        let file = ("@library@", library);
        self.put(folder, &manifest, MANIFEST, &[&values[..], &[entry]].concat())?;
        let values = [&values[..], &[file]].concat();
        self.put(folder, "Cargo.toml", CARGO, &values)?;
        self.put(folder, "tests/check.rs", CHECK, &values)?;
        self.put(folder, ".gitignore", "/target\n/@library@\n", &values)?;
        self.put_source(folder, self.kind.source)
    }

    /// Writes a crate into `plugins/` of a source tree, and answers with its folder: `cargo xtask stage` completes its
    /// manifest. Errors: as for [`NewPlugin::write`].
    pub fn write_in_tree(&self, root: &Path) -> Result<PathBuf, String> {
        let folder = root.join("plugins").join(self.id());
        refuse_existing(&folder)?;
        let inherited = "\n[dev-dependencies]\neasytransfer-conformance.workspace = true\n\n[lints]\nworkspace = true";
        let values = [
            ("@sdk@", "workspace = true".to_owned()),
            ("@workspace@", inherited.to_owned()),
            ("@version@", String::new()),
            ("@library@", String::new()),
        ];
        self.put(&folder, "Cargo.toml", CARGO, &values)?;
        self.put(&folder, "plugin.toml", MANIFEST, &values)?;
        self.put_source(&folder, &[self.kind.source, SUITE].concat())?;
        Ok(folder)
    }

    fn put_source(&self, folder: &Path, source: &str) -> Result<(), String> {
        self.put(folder, "src/lib.rs", source, &[])?;
        // As they are: PTX has placeholders of its own.
        self.kind.files.iter().try_for_each(|(file, text)| put(&folder.join(file), text))
    }

    /// Writes a template with its placeholders filled in.
    fn put(
        &self,
        folder: &Path,
        file: &str,
        template: &str,
        values: &[(&str, String)],
    ) -> Result<(), String> {
        let id = self.id();
        let mut text = template.to_owned();
        for (placeholder, value) in values {
            text = text.replace(placeholder, value);
        }
        let text = text
            .replace("@used@", self.kind.used)
            .replace("@id@", &id)
            .replace("@kind@", self.kind.word)
            .replace("@requires@", self.kind.requires)
            .replace("@name@", self.name)
            .replace("@Type@", &type_name(self.name))
            .replace("@crate@", &id.replace('-', "_"));
        put(&folder.join(file), &text)
    }

    /// What comes next, for whoever started the plugin in `folder`, which is in the tree or not.
    pub fn next_steps(&self, folder: &Path, in_tree: bool) -> String {
        let next = match self.language {
            Language::Rust if in_tree => {
                "edit src/lib.rs, then run `cargo test --release` there and `cargo xtask stage`, which puts it where programs find it".to_owned()
            }
            Language::Rust => format!(
                "edit src/lib.rs, then run `cargo test` there: it builds the plugin, puts it beside {}.toml and checks it",
                self.id()
            ),
            _ => "edit the source, then run `make check` there: it builds the plugin and checks it".to_owned(),
        };
        let plugins =
            if in_tree { String::new() } else { format!("--plugins {} ", folder.display()) };
        format!(
            "written: {}\nnext: {next}\n      (the first build takes {})\nuse:  easytransfer train {plugins}... {}\n",
            folder.display(),
            self.language.first_build(),
            self.kind.used.replace("@name@", self.name)
        )
    }
}

fn refuse_existing(folder: &Path) -> Result<(), String> {
    if folder.exists() {
        return Err(format!("{} exists already", folder.display()));
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| format!("write {}: {error}", path.display()))
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
        let folder = std::env::temp_dir().join(format!("scaffold-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    /// A package with nothing but what is looked for.
    fn package(folder: &Path) -> Sdk {
        for file in [
            "bin/easytransfer",
            "include/easytransfer_plugin.h",
            "share/easytransfer/crates/easytransfer-plugin/Cargo.toml",
        ] {
            put(&folder.join(file), "").unwrap();
        }
        Sdk::beside(&folder.join("bin/easytransfer")).unwrap()
    }

    #[test]
    fn every_placeholder_is_filled_and_what_exists_is_kept() {
        let folder = scratch("all");
        let sdk = package(&folder);
        let all = |language, kinds: Vec<&'static str>| {
            kinds.into_iter().map(move |kind| (kind, language))
        };
        let plugins = all(Language::Rust, kinds().collect())
            .chain(all(Language::C, native_kinds().collect()))
            .chain(all(Language::Cpp, native_kinds().collect()));
        for (kind, language) in plugins {
            let to = folder.join(format!("{kind}-{language:?}"));
            let plugin = NewPlugin::new(kind, "my-own", language).unwrap();
            plugin.write(&sdk, &to).unwrap();
            let manifest = format!("{}.toml", plugin.id());
            let source = match language {
                Language::Rust => vec!["src/lib.rs".to_owned(), "Cargo.toml".to_owned()],
                Language::C => vec![format!("{kind}.c"), "README.md".to_owned()],
                Language::Cpp => vec![format!("{kind}.cpp"), "README.md".to_owned()],
            };
            let rust = ["tests/check.rs".to_owned(), ".gitignore".to_owned()];
            let more: &[String] = if language == Language::Rust { &rust } else { &[] };
            for file in source.iter().chain([&manifest]).chain(more) {
                let text = fs::read_to_string(to.join(file)).unwrap();
                let left = text.replace("$@", "").contains('@');
                assert!(!left, "{file}: {text}");
                assert!(text.contains("my-own") || text.contains("my_own"), "{file}: {text}");
            }
            let again = plugin.write(&sdk, &to).unwrap_err();
            assert!(again.contains("exists already"), "{again}");
            let next = plugin.next_steps(&to, false);
            assert!(next.contains("the first build takes"), "{next}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn crates_of_the_tree_inherit_from_it() {
        let root = scratch("tree");
        for kind in kinds() {
            let plugin = NewPlugin::new(kind, "my-own", Language::Rust).unwrap();
            let folder = plugin.write_in_tree(&root).unwrap();
            assert_eq!(folder, root.join("plugins").join(plugin.id()));
            for (file, words) in [
                ("Cargo.toml", "easytransfer-conformance.workspace = true"),
                ("src/lib.rs", "plugin_passes_the_suite"),
                ("plugin.toml", "manifest_version = 1"),
            ] {
                let text = fs::read_to_string(folder.join(file)).unwrap();
                assert!(text.contains(words) && !text.contains('@'), "{file}: {text}");
            }
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_command_without_a_package_says_what_is_missing() {
        let folder = scratch("bare");
        put(&folder.join("bin/easytransfer"), "").unwrap();
        let error = Sdk::beside(&folder.join("bin/easytransfer")).unwrap_err();
        assert!(error.contains("share/easytransfer/crates"), "{error}");
        assert!(Sdk::beside(&folder.join("bin/none")).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn bad_kind_language_and_name_are_errors() {
        for (kind, name, language) in [
            ("banana", "a", Language::Rust),
            ("loss", "A", Language::C),
            ("loss", "a b", Language::Rust),
            ("loss", "-a", Language::Cpp),
            ("loss", "", Language::Rust),
            ("model", "a", Language::C),
        ] {
            assert!(NewPlugin::new(kind, name, language).is_err(), "{kind} {name}");
        }
        assert!(Language::of("cobol").is_err());
    }
}
